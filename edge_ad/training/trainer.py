"""The training loop (METHOD section 5): deterministic, resumable, and deaf to steps that are not finite.

What a step draws depends on the seed and the step's number alone, so a run that was killed goes on to the same bits as
one that was not. "The same bits" holds on one machine with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edge_ad.errors import EdgeAdError
from edge_ad.files import write_bytes
from edge_ad.frame import F32
from edge_ad.models.mappers import Mappers
from edge_ad.models.octa import Octa, frozen_anchors
from edge_ad.presets import Preset
from edge_ad.training.features import Track, silent
from edge_ad.training.sampling import Batch, PixelSampler

TEXT_EVERY = 4
"""Without a text term in the map (``fusion.beta`` = 0) text chooses the class alone, which every so many-th pixel of a
step teaches well enough: no mapper but those into the text space is touched, and these are half of a step's work."""


class Learner(nn.Module):
    """The mappers, and the adaptor that makes the anchors; ``prompts`` are T_c of all classes, (C, 14, D_txt)."""

    prompts: Tensor | None

    def __init__(self, preset: Preset, prompts: F32 | None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(preset.training.seed)
            self.mappers = Mappers(preset)
            o = preset.octa
            self.octa: Octa | None = None
            if self.mappers.has_text and o.anchors == "learned":
                self.octa = Octa(
                    preset.text.dim, experts=o.experts, top_k=o.top_k, hidden_ratio=o.hidden_ratio, dropout=o.dropout
                )
        self.text_every = 1 if preset.fusion.beta > 0 else TEXT_EVERY
        given = None if prompts is None or not self.mappers.has_text else torch.from_numpy(prompts)
        self.register_buffer("prompts", given, persistent=False)

    def anchors(self) -> Tensor | None:
        """(C, D_txt), or None for a model without text."""
        if self.prompts is None:
            return None
        if self.octa is None:
            return frozen_anchors(self.prompts)
        anchors: Tensor = self.octa(self.prompts)
        return anchors

    def loss(self, batch: Batch) -> Tensor:
        """Eq. 9-11 with all lambdas 1: the sum of the ``1 - cos`` terms, each a mean over the pixels."""
        m = self.mappers
        total = _one_minus_cos(m.rgb_to_3d(batch.rgb), batch.points)
        total = total + _one_minus_cos(m.points_to_rgb(batch.points), batch.rgb)
        anchors = self.anchors()
        if anchors is not None and m.rgb_to_text is not None and m.points_to_text is not None:
            # A product with one-hot rows gathers the anchors; its gradient is summed in a fixed order.
            rgb, points, classes = (f[:: self.text_every] for f in (*batch.for_text, batch.classes))
            own = F.one_hot(classes, len(anchors)).to(anchors.dtype) @ anchors
            total = total + _one_minus_cos(m.rgb_to_text(rgb), own)
            total = total + _one_minus_cos(m.points_to_text(points), own)
        return total


class _Cosine(torch.autograd.Function):
    """Cosine of rows, (P, D) and (P, D) -> (P,), with a gradient in two passes over the rows.

    The same as ``F.cosine_similarity``; with that one a training step took 0.19 s of one core, with this one 0.13
    (4096 pixels, preset compact).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        norm_x = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-8)
        norm_y = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp_min(1e-8)
        cosine = torch.linalg.vecdot(x, y).unsqueeze(-1) / (norm_x * norm_y)
        ctx.save_for_backward(x, y, norm_x, norm_y, cosine)
        return cosine.squeeze(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, y, norm_x, norm_y, cosine = ctx.saved_tensors
        g = grad.unsqueeze(-1)
        across, along = g / (norm_x * norm_y), g * cosine
        grad_x = (y * across).sub_(x * (along / norm_x**2)) if ctx.needs_input_grad[0] else None
        grad_y = (x * across).sub_(y * (along / norm_y**2)) if ctx.needs_input_grad[1] else None
        return grad_x, grad_y


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine similarity of the rows of two (P, D) tensors, (P,)."""
    out: Tensor = _Cosine.apply(x, y)  # type: ignore[no-untyped-call]
    return out


def _one_minus_cos(x: Tensor, y: Tensor) -> Tensor:
    return (1 - cosine(x, y)).mean()


@dataclass(frozen=True)
class TrainingPlan:
    """How many steps, of what, with how many threads.

    ``min_steps``: small sets are gone through more often than ``training.epochs`` says, until this many steps are made.
    ``checkpoint_every_s``: seconds between two checkpoints.
    """

    samples_per_step: int = 16
    min_steps: int = 600
    threads: int = 1
    checkpoint_every_s: float = 20.0

    def __post_init__(self) -> None:
        for name in ("samples_per_step", "min_steps", "threads"):
            if getattr(self, name) < 1:
                raise EdgeAdError(f"{name} is {getattr(self, name)}", "at least 1")

    def steps(self, preset: Preset, sampler: PixelSampler) -> int:
        """Steps in all."""
        return max(preset.training.epochs * sampler.steps_per_epoch(self.samples_per_step), self.min_steps)


@dataclass(frozen=True)
class Trained:
    """``learner`` in eval mode; ``losses`` (steps,) float32, NaN where a step was skipped; ``resumed_at``: the first
    step of this run."""

    learner: Learner
    losses: F32
    skipped: int
    resumed_at: int


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads, inside the block."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


def train(
    preset: Preset,
    sampler: PixelSampler,
    prompts: F32 | None,
    plan: TrainingPlan,
    *,
    checkpoint: Path | None = None,
    track: Track = silent,
) -> Trained:
    """Fit the mappers and the adaptor.

    Parameters
    ----------
    prompts : (C, 14, D_txt) float32, or None for a model without text.
    checkpoint : file to go on from when it exists, written while training. Its name is to tell runs apart.

    Raises
    ------
    EdgeAdError
        Every step had gradients that are not finite.
    """
    steps = plan.steps(preset, sampler)
    seed = preset.training.seed
    learner = Learner(preset, prompts).train()
    parameters = dict(learner.named_parameters())
    adam = torch.optim.Adam(parameters.values(), lr=preset.training.learning_rate)
    losses = torch.full((steps,), torch.nan)
    first = 0 if checkpoint is None else _resume(checkpoint, learner, adam, losses)
    saved = time.monotonic()
    with deterministic(plan.threads), torch.random.fork_rng(devices=[]):
        for step in track(range(first, steps), steps - first, "fit"):
            for group in adam.param_groups:
                group["lr"] = preset.training.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            batch = sampler.step(step, plan.samples_per_step, preset.training.pixels_per_step, seed)
            torch.manual_seed((seed << 32) + step)  # for dropout
            loss = learner.loss(batch)
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if _finite(loss, parameters.values()):
                losses[step] = loss.detach()
                adam.step()
            if checkpoint is not None and time.monotonic() - saved >= plan.checkpoint_every_s:
                _save(checkpoint, learner, adam, losses, step + 1)
                saved = time.monotonic()
    skipped = int(losses.isnan().sum())
    if skipped == steps:
        raise EdgeAdError(
            "no step of the training had finite gradients", "", "look at the features: --fresh computes them anew"
        )
    if checkpoint is not None:
        _save(checkpoint, learner, adam, losses, steps)
    return Trained(learner.eval(), losses.numpy(), skipped, first)


def _finite(loss: Tensor, parameters: Iterable[nn.Parameter]) -> bool:
    sums = [loss.detach()] + [p.grad.abs().sum() for p in parameters if p.grad is not None]
    return bool(torch.isfinite(torch.stack(sums)).all())


def _save(path: Path, learner: Learner, adam: torch.optim.Adam, losses: Tensor, done: int) -> None:
    tensors = {"losses": losses}
    for name, p in learner.named_parameters():
        tensors[f"weight.{name}"] = p.detach()
        for key, value in adam.state.get(p, {}).items():
            tensors[f"adam.{key}.{name}"] = value
    write_bytes(path, save({k: v.contiguous() for k, v in tensors.items()}, metadata={"done": str(done)}))


def _resume(path: Path, learner: Learner, adam: torch.optim.Adam, losses: Tensor) -> int:
    """Read a checkpoint back; the number of the step to go on with, 0 when there is no file."""
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            done = int((file.metadata() or {})["done"])
            names = set(file.keys())
            with torch.no_grad():
                losses.copy_(file.get_tensor("losses"))
                for name, p in learner.named_parameters():
                    p.copy_(file.get_tensor(f"weight.{name}"))
                    state = {k: f"adam.{k}.{name}" for k in ("step", "exp_avg", "exp_avg_sq")}
                    if state["step"] in names:  # a parameter without a step yet has no moments
                        adam.state[p] = {k: file.get_tensor(key) for k, key in state.items()}
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as e:
        raise EdgeAdError(
            f"{path} is not a checkpoint of this run ({str(e).splitlines()[0]})", "", "start anew with --fresh"
        ) from None
    return done


def loss_curve(losses: F32, points: int = 100) -> list[float]:
    """Means over at most ``points`` stretches of the steps, skipped steps left out.

    A stretch of nothing but skipped steps repeats the mean before it.
    """
    curve: list[float] = []
    for part in np.array_split(losses, min(points, len(losses))):
        known = part[~np.isnan(part)]
        if len(known) or curve:
            curve.append(round(float(known.mean(dtype=np.float64)), 6) if len(known) else curve[-1])
    return curve
