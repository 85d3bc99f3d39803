"""The pretraining run: seeded, resumable, with a log and weights saved early and often."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from edge_ad.errors import EdgeAdError
from edge_ad.files import write_bytes, write_text
from edge_ad.training.pretrain.mae import MaskedAutoencoder, Sizes, augment, losses, split
from edge_ad.training.pretrain.pool import Pool


@dataclass(frozen=True)
class Recipe:
    """How to train. ``mask`` is the range of masked shares; ``reconstruct`` how many masked groups enter the loss."""

    steps: int = 1200
    batch: int = 8
    seed: int = 115
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    mask: tuple[float, float] = (0.6, 0.75)
    reconstruct: int = 96
    geometry_weight: float = 1.0
    report_every: int = 25
    save_every: int = 100


def _batch(pool: Pool, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(pool.groups[rows].astype(np.float32)),
        torch.from_numpy(pool.clean[rows].astype(np.float32)),
        torch.from_numpy(pool.centers[rows]),
    )


def _generator(*key: int) -> torch.Generator:
    """Randomness of one step alone, so that a resumed run continues as if it had never stopped."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 2 % of the learning rate."""
    warm = max(1, round(recipe.warmup * recipe.steps))
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, recipe.steps - warm)
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


class Trainer:
    """Model, optimiser and step counter; :meth:`step` depends on them and on (seed, step) alone."""

    def __init__(self, sizes: Sizes, recipe: Recipe, pool: Pool) -> None:
        if pool.groups.shape[2] != sizes.group_size:
            raise EdgeAdError(f"pool groups of {pool.groups.shape[2]} points", f"{sizes.group_size} points")
        self.recipe, self.pool, self.count = recipe, pool, 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = MaskedAutoencoder(sizes)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )

    def step(self) -> dict[str, float]:
        """One optimiser step: the loss terms as floats."""
        r, generator = self.recipe, _generator(self.recipe.seed, self.count)
        rows = torch.randperm(len(self.pool), generator=generator)[: r.batch].numpy()
        groups, clean, centers = augment(*_batch(self.pool, rows), generator)
        total = centers.shape[1]
        share = float(torch.rand(1, generator=generator)) * (r.mask[1] - r.mask[0]) + r.mask[0]
        visible, masked = split(total, max(1, round((1 - share) * total)), r.reconstruct, len(rows), generator)
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.count, r)
        terms = losses(self.model, groups, clean, centers, visible, masked, r.geometry_weight)
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.count += 1
        return {k: float(getattr(terms, k).detach()) for k in ("total", "chamfer", "geometry")}

    @torch.no_grad()
    def evaluate(self, pool: Pool, *, training_statistics: bool = False, most: int = 32) -> dict[str, float]:
        """Mean loss terms over ``pool`` with fixed masks, in eval mode; with ``training_statistics`` BatchNorm takes
        each batch's own statistics instead of the running ones (which stay untouched)."""
        model = self.model.eval()
        layers = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        kept = [m.momentum for m in layers]
        for layer in layers:
            layer.training, layer.momentum = training_statistics, 0.0
        sums, seen = {"total": 0.0, "chamfer": 0.0, "geometry": 0.0}, 0
        for start in range(0, min(most, len(pool)), self.recipe.batch):
            rows = np.arange(start, min(start + self.recipe.batch, len(pool)))
            generator = _generator(self.recipe.seed, start, 1)
            groups, clean, centers = _batch(pool, rows)
            count = centers.shape[1]
            share = sum(self.recipe.mask) / 2
            index = split(count, max(1, round((1 - share) * count)), self.recipe.reconstruct, len(rows), generator)
            terms = losses(model, groups, clean, centers, *index, self.recipe.geometry_weight)
            for k in sums:
                sums[k] += float(getattr(terms, k)) * len(rows)
            seen += len(rows)
        for layer, momentum in zip(layers, kept, strict=True):
            layer.training, layer.momentum = False, momentum
        return {k: v / seen for k, v in sums.items()}

    @torch.no_grad()
    def settle_statistics(self, batches: int = 24) -> None:
        """BatchNorm statistics anew: the plain average over ``batches`` batches of whole clouds."""
        layers = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        kept = [m.momentum for m in layers]
        self.model.train()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        for i in range(batches):
            generator = _generator(self.recipe.seed, i, 2)
            rows = torch.randperm(len(self.pool), generator=generator)[: self.recipe.batch].numpy()
            groups, _, _ = augment(*_batch(self.pool, rows), generator)
            self.model.encode_tokens(groups)
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
        self.model.eval()

    def save(self, path: Path) -> None:
        """Everything a resumed run needs, without pickled objects."""
        buffer = io.BytesIO()
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.count,
            "key": repr((asdict(self.recipe), asdict(self.model.sizes))),
        }
        torch.save(state, buffer)
        write_bytes(path, buffer.getbuffer())

    def resume(self, path: Path) -> None:
        """Continue from :meth:`save`'s file; refuses the state of another recipe or other sizes."""
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as e:  # torch.load raises many kinds for a damaged file
            raise EdgeAdError(f"{path} is not a training state ({type(e).__name__})", "", "delete it") from None
        if state.get("key") != repr((asdict(self.recipe), asdict(self.model.sizes))):
            raise EdgeAdError(f"{path} belongs to another recipe or other sizes", "", "name another --work folder")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.count = int(state["step"])


def pretrain(
    trainer: Trainer, held_out: Pool, out: Path, log: Path, state: Path, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Run to the recipe's last step; write the encoder to ``out`` (safetensors, radius units) and the curve to ``log``.

    ``out`` is overwritten every ``save_every`` steps, so that an early version is usable at once; ``state`` is what a
    stopped run resumes from. Returns the final held-out loss terms (eval mode).
    """
    recipe, model = trainer.recipe, trainer.model
    encoder = sum(p.numel() for p in model.encoder.parameters())
    lines = log.read_text(encoding="utf-8").splitlines() if trainer.count and log.is_file() else []

    def note(text: str) -> None:
        lines.append(text)
        say(text)
        write_text(log, "\n".join(lines) + "\n")

    if not trainer.count:
        note(f"encoder {encoder} parameters, with decoder {sum(p.numel() for p in model.parameters())}")
        note(f"sizes {asdict(model.sizes)}")
        note(f"recipe {asdict(recipe)}")
        note(f"pool {len(trainer.pool)} clouds of {trainer.pool.centers.shape[1]} groups; held out {len(held_out)}")
        note(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s)")
    start, recent = time.monotonic(), []
    while trainer.count < recipe.steps:
        recent.append(trainer.step())
        if trainer.count % recipe.report_every == 0 or trainer.count == recipe.steps:
            mean = {k: sum(r[k] for r in recent) / len(recent) for k in recent[0]}
            note(f"step {trainer.count:5d}  {_terms(mean)}  {time.monotonic() - start:.0f} s")
            recent = []
        if trainer.count % recipe.save_every == 0:
            note(f"step {trainer.count:5d}  held out (eval mode)  {_terms(trainer.evaluate(held_out))}")
            write_bytes(out, to_safetensors(model.folded_state()))
            trainer.save(state)
    trainer.settle_statistics()
    final = trainer.evaluate(held_out)
    note(f"held out, eval mode, settled statistics   {_terms(final)}")
    note(f"held out, each batch's own statistics     {_terms(trainer.evaluate(held_out, training_statistics=True))}")
    write_bytes(out, to_safetensors(model.folded_state()))
    note(f"trained {recipe.steps} steps, seed {recipe.seed}, this run {time.monotonic() - start:.0f} s")
    return final


def _terms(values: dict[str, float]) -> str:
    return "  ".join(f"{k} {v:.4f}" for k, v in values.items())
