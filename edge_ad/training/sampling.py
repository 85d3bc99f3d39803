"""Pixels for a training step: a few samples, a few of their valid pixels, features interpolated from the tokens."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from edge_ad.frame import F32, I64
from edge_ad.presets import Points, Preset, Rgb
from edge_ad.training.features import SampleFeatures, Source, load

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Standard:
    """The affine standardisation of tokens: weight (D', D) and offset (D',), float32."""

    weight: F32
    offset: F32

    def __call__(self, tokens: F32) -> F32:
        """(N, D) -> (N, D')."""
        return np.asarray(tokens @ self.weight.T + self.offset, dtype=np.float32)


@dataclass(frozen=True)
class Batch:
    """Features of P pixels: rgb (P, D_rgb), points (P, D_3d) float32, classes (P,) int64.

    shared : the two before they were made relative to their class (``mappers.condition``); None where they were not.
    """

    rgb: Tensor
    points: Tensor
    classes: Tensor
    shared: tuple[Tensor, Tensor] | None = None

    @property
    def for_text(self) -> tuple[Tensor, Tensor]:
        """What the mappers into the text space read: features that do not know their class."""
        return (self.rgb, self.points) if self.shared is None else self.shared


class OfClass(Protocol):
    """Makes shared features of one class relative to it; :meth:`ReferenceDetector.of_class` is one."""

    def __call__(self, rgb: Tensor, points: Tensor, class_index: int, /) -> tuple[Tensor, Tensor]:
        """(P, D_rgb) and (P, D_3d) -> the same shapes."""


def bilinear(grid: int, size: int) -> tuple[I64, F32]:
    """Interpolation from a grid x grid token map to size x size pixels (``align_corners=False``).

    Returns
    -------
    (size * size, 4) int64 token indices and (size * size, 4) float32 weights that sum to 1.
    """
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    low = position.astype(np.int64)
    high = np.minimum(low + 1, grid - 1)
    share = position - low
    index, weight = np.stack([low, high], 1), np.stack([1 - share, share], 1)
    indices = index[:, None, :, None] * grid + index[None, :, None, :]
    weights = weight[:, None, :, None] * weight[None, :, None, :]
    return indices.reshape(-1, 4), weights.reshape(-1, 4).astype(np.float32)


def standards(preset: Preset, sources: Sequence[Source]) -> tuple[Standard, Standard]:
    """Standardisation from the training tokens: all point tokens; colour tokens whose cell holds a valid pixel.

    ``residual`` is whitening here; :func:`whitened_again` goes on from it.
    """
    grid, size = preset.rgb.grid, preset.geometry.size
    dims = (preset.dim_rgb, preset.dim_points)
    count = [0, 0]
    total = [np.zeros(d) for d in dims]
    square = [np.zeros((d, d)) for d in dims]
    if preset.rgb.standardize != "none" or preset.points.standardize != "none":
        for source in sources:
            f = load(source)
            cells = np.unique(f.pixels // size * grid // size * grid + f.pixels % size * grid // size)
            for i, tokens in enumerate((f.rgb_tokens[cells], f.point_tokens)):
                x = tokens.astype(np.float64)
                count[i] += len(x)
                total[i] += x.sum(0)
                square[i] += x.T @ x
    made = []
    sections: tuple[Rgb | Points, ...] = (preset.rgb, preset.points)
    for i, section in enumerate(sections):
        if section.standardize == "none":
            weight, mean = np.eye(dims[i]), np.zeros(dims[i])
        else:
            mean = total[i] / count[i]
            covariance = square[i] / count[i] - np.outer(mean, mean)
            weight = scaling(covariance, section.standardize, section.ridge)
        made.append(lifted(weight, -weight @ mean, section.lift, preset.constants))
    return made[0], made[1]


def scaling(covariance: F64, how: str, ridge: float) -> F64:
    """(D, D) covariance -> (D, D) weight that gives unit variance: a channel at a time, or along the principal axes.

    ``ridge``, a share of the largest variance, is added to the variances of the principal axes: it keeps those that
    carry only rounding noise from being blown up.
    """
    if how == "channel":
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        # A channel that never varies carries nothing: it is centred and otherwise left alone.
        return np.diag(1 / np.where(std > 1e-6 * max(float(std.max()), 1e-12), std, 1.0))
    variance, axes = np.linalg.eigh(covariance)
    variance = np.maximum(variance, 0) + max(ridge, 1e-9) * max(float(variance.max()), 1e-12)
    return np.asarray((axes / np.sqrt(variance)).T)


def lifted(weight: F64, offset: F64, lift: float, constants: int = 1) -> Standard:
    """With ``lift`` > 0: features times lift / sqrt(D), and constant channels: 1, and zeros where there are more.

    The distance of eq. 15 compares directions. The constant channel makes a feature of unusual length another direction
    as well; for a small ``lift`` the distance becomes the Euclidean one of the standardised features, times the lift.
    """
    if lift > 0:
        scale = lift / np.sqrt(len(weight))
        weight = np.vstack([weight * scale, np.zeros((constants, weight.shape[1]))])
        offset = np.append(offset * scale, np.eye(constants)[0])
    return Standard(weight.astype(np.float32), offset.astype(np.float32))


def whitened_again(before: Standard, covariance: F64, ridge: float, lift: float) -> Standard:
    """``before``, then whitening by a covariance of the features that it gives (without its constant channel).

    covariance : (D, D). ridge, lift : as of the preset.
    """
    dim = len(covariance)
    turn = scaling(covariance, "whiten", ridge)
    scale = lift / np.sqrt(dim) if lift > 0 else 1.0
    return lifted(turn @ before.weight[:dim] / scale, turn @ before.offset[:dim] / scale, lift)


class PixelSampler:
    """Draws batches of pixels; what step ``n`` gives depends on the seed and ``n`` alone.

    Parameters
    ----------
    sources : the samples. classes : names, in the order of the model's class indices.
    rgb_standard, point_standard : applied to the tokens. of_class : makes features relative to their class.
    memory_bytes : budget for features kept in memory; beyond it the oldest are read from disk again.
    """

    def __init__(
        self,
        preset: Preset,
        sources: Sequence[Source],
        classes: Sequence[str],
        rgb_standard: Standard,
        point_standard: Standard,
        *,
        memory_bytes: int = 2 << 30,
        of_class: OfClass | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.class_index = {name: i for i, name in enumerate(classes)}
        self.standards = (rgb_standard, point_standard)
        self.of_class = of_class
        index, weight = bilinear(preset.rgb.grid, preset.geometry.size)
        self._index, self._weight = torch.from_numpy(index), torch.from_numpy(weight)
        self._kept: OrderedDict[int, SampleFeatures] = OrderedDict()
        self._free = memory_bytes

    def features(self, i: int) -> SampleFeatures:
        """Standardised features of sample ``i``."""
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        f = load(self.sources[i])
        rgb, points = self.standards
        f = SampleFeatures(rgb(f.rgb_tokens), points(f.point_tokens), f.pixels, f.interp_index, f.interp_weight)
        self._kept[i] = f
        self._free -= _size(f)
        while self._free < 0 and len(self._kept) > 1:
            self._free += _size(self._kept.popitem(last=False)[1])
        return f

    def interpolate(self, i: int, rows: I64) -> tuple[Tensor, Tensor]:
        """Shared features of the given valid pixels of sample ``i``: (P, D_rgb) and (P, D_3d)."""
        f = self.features(i)
        pixels = torch.from_numpy(f.pixels[rows])
        rgb = F.embedding_bag(
            self._index[pixels], torch.from_numpy(f.rgb_tokens), per_sample_weights=self._weight[pixels], mode="sum"
        )
        points = F.embedding_bag(
            torch.from_numpy(f.interp_index[rows]),
            torch.from_numpy(f.point_tokens),
            per_sample_weights=torch.from_numpy(f.interp_weight[rows]),
            mode="sum",
        )
        return rgb, points

    def batch(self, samples: Sequence[int], pixels: int, seed: Sequence[int]) -> Batch:
        """``pixels`` pixels, spread evenly over ``samples`` and drawn with replacement."""
        rng = np.random.default_rng(list(seed))
        drawn = []
        for n, i in enumerate(samples):
            share = pixels * (n + 1) // len(samples) - pixels * n // len(samples)
            drawn.append(self._drawn(i, rng.integers(0, self.sources[i].pixels, share)))
        return joined(drawn)

    def _drawn(self, i: int, rows: I64) -> Batch:
        """The given valid pixels of one sample."""
        index = self.class_index[self.sources[i].class_name]
        classes = torch.full((len(rows),), index, dtype=torch.long)
        rgb, points = self.interpolate(i, rows)
        if self.of_class is None:
            return Batch(rgb, points, classes)
        return Batch(*self.of_class(rgb, points, index), classes, (rgb, points))

    def steps_per_epoch(self, samples_per_step: int) -> int:
        """How many steps visit every sample once."""
        return -(-len(self.sources) // samples_per_step)

    def step(self, number: int, samples_per_step: int, pixels: int, seed: int) -> Batch:
        """The batch of step ``number`` (from 0): each epoch goes through all samples in an order of its own."""
        per_epoch = self.steps_per_epoch(samples_per_step)
        epoch, k = divmod(number, per_epoch)
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(self.sources))
        chosen = order[k * samples_per_step : (k + 1) * samples_per_step]
        return self.batch([int(i) for i in chosen], pixels, (seed, 1, number))

    def every(self, pixels: int, seed: int) -> Iterator[Batch]:
        """One batch a sample of at most ``pixels`` distinct pixels, in order (for means on held-out parts)."""
        for i, source in enumerate(self.sources):
            rng = np.random.default_rng([seed, 2, i])
            rows = np.sort(rng.permutation(source.pixels)[:pixels])
            yield self._drawn(i, rows)


def relative(rgb: Tensor, points: Tensor, classes: Tensor, of_class: OfClass | None) -> Batch:
    """Shared features of pixels of several classes -> a batch, relative to their classes where there are conditions."""
    if of_class is None:
        return Batch(rgb, points, classes)
    own_rgb, own_points = torch.empty_like(rgb), torch.empty_like(points)
    for index in classes.unique().tolist():
        rows = classes == index
        own_rgb[rows], own_points[rows] = of_class(rgb[rows], points[rows], index)
    return Batch(own_rgb, own_points, classes, (rgb, points))


def joined(batches: Sequence[Batch]) -> Batch:
    """All pixels of several batches, in order."""
    shared = [b.shared for b in batches if b.shared is not None]
    return Batch(
        torch.cat([b.rgb for b in batches]),
        torch.cat([b.points for b in batches]),
        torch.cat([b.classes for b in batches]),
        (torch.cat([s[0] for s in shared]), torch.cat([s[1] for s in shared])) if shared else None,
    )


def _size(f: SampleFeatures) -> int:
    return sum(a.nbytes for a in vars(f).values())
