"""A sample of the old classes' features, kept with the model: what a later class is learned beside, against forgetting.

``rehearsal.safetensors`` in the model directory: ``rgb`` (N, D_rgb) and ``points`` (N, D_3d) float16, standardised
features of N training pixels, before any class condition; ``classes`` (N,) int64, rows of the anchors; ``octa.*``: the
adaptor that makes anchors from prompts, where it was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from edge_ad.errors import EdgeAdError
from edge_ad.models.checkpoints import read_state
from edge_ad.models.octa import Octa
from edge_ad.presets import Preset
from edge_ad.training.sampling import PixelSampler

FILE = "rehearsal.safetensors"
PIXELS_PER_CLASS = 4096


@dataclass(frozen=True)
class Rehearsal:
    """rgb (N, D_rgb), points (N, D_3d) float32, classes (N,) int64; octa: None where anchors were not learned."""

    rgb: Tensor
    points: Tensor
    classes: Tensor
    octa: Octa | None

    def to_bytes(self) -> bytes:
        """The file's content."""
        tensors = {"rgb": self.rgb.half(), "points": self.points.half(), "classes": self.classes}
        if self.octa is not None:
            tensors |= {f"octa.{k}": v.contiguous() for k, v in self.octa.state_dict().items()}
        return save(tensors)

    def joined(self, other: Rehearsal) -> Rehearsal:
        """This one and another class's pixels."""
        return Rehearsal(
            torch.cat([self.rgb, other.rgb]),
            torch.cat([self.points, other.points]),
            torch.cat([self.classes, other.classes]),
            self.octa,
        )


@torch.no_grad()
def collect(sampler: PixelSampler, octa: Octa | None, seed: int, per_class: int = PIXELS_PER_CLASS) -> Rehearsal:
    """Draw up to ``per_class`` pixels of every class, spread over its samples."""
    counts = {name: sum(s.class_name == name for s in sampler.sources) for name in sampler.class_index}
    most = {name: -(-per_class // max(1, n)) for name, n in counts.items()}
    rgb, points, classes = [], [], []
    for source, batch in zip(sampler.sources, sampler.every(max(most.values()), seed)):
        n = most[source.class_name]
        shared_rgb, shared_points = batch.for_text
        rgb.append(shared_rgb[:n].float())
        points.append(shared_points[:n].float())
        classes.append(batch.classes[:n])
    return Rehearsal(torch.cat(rgb), torch.cat(points), torch.cat(classes), octa)


def read_rehearsal(model: Path, preset: Preset, classes: Sequence[str]) -> Rehearsal:
    """Read a model directory's rehearsal.

    Raises
    ------
    EdgeAdError
        The model was fitted by an older program and has none, or the file is not this model's.
    """
    path = model / FILE
    if not path.is_file():
        raise EdgeAdError(
            f"{model} keeps no features of its classes ({FILE})",
            "a model that this version of edge-ad fit wrote",
            "fit all classes together: edge-ad fit",
        )
    state = read_state(path)
    try:
        rgb, points, labels = state["rgb"].float(), state["points"].float(), state["classes"].long()
    except KeyError as e:
        raise EdgeAdError(f"{path} lacks {e}", "a file that edge-ad fit wrote") from None
    n = len(labels)
    sizes = (n, preset.feature_rgb), (n, preset.feature_points)
    if (tuple(rgb.shape), tuple(points.shape)) != sizes or sorted(set(labels.tolist())) != list(range(len(classes))):
        raise EdgeAdError(f"{path} is not this model's", f"features of {', '.join(classes)}", "fit anew")
    return Rehearsal(rgb, points, labels, _octa(preset, state, path))


def _octa(preset: Preset, state: dict[str, Tensor], path: Path) -> Octa | None:
    weights = {k.removeprefix("octa."): v for k, v in state.items() if k.startswith("octa.")}
    if not weights:
        return None
    o = preset.octa
    octa = Octa(preset.text.dim, experts=o.experts, top_k=o.top_k, hidden_ratio=o.hidden_ratio, dropout=o.dropout)
    try:
        octa.load_state_dict(weights)
    except RuntimeError as e:
        raise EdgeAdError(f"{path}: the adaptor does not fit ({str(e).splitlines()[0]})", "this model's") from None
    return octa.eval()
