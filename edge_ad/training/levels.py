"""Fitting of the expected distances (:mod:`edge_ad.models.levels`), after the mappers and with these frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edge_ad.models.distance import distance
from edge_ad.models.levels import Level, Levels
from edge_ad.models.mappers import Mappers
from edge_ad.presets import Preset
from edge_ad.training.sampling import Batch
from edge_ad.training.trainer import deterministic

STEPS = 500
RATE = 3e-3
TAIL = 0.005
"""Share of the training pixels below and above the range that a level is kept in."""
RANGE_STEPS = 40


@dataclass(frozen=True)
class _Pairs:
    """Standardised features and the distance of the other modality's term that they are to predict."""

    rgb: Tensor
    points: Tensor
    d_rgb: Tensor
    d_3d: Tensor


def fit_levels(
    preset: Preset, mappers: Mappers, draw: Callable[[int], Batch], *, threads: int = 1, steps: int = STEPS
) -> Levels:
    """Fit both levels.

    The loss ``log L + D / L`` is the negative log-likelihood of an exponential distribution; its minimum is the
    conditional mean, whatever the distribution.

    Parameters
    ----------
    mappers : fitted. draw : step number -> a batch of good pixels; the same number gives the same batch.
    """
    with deterministic(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(preset.training.seed + 1)
        levels = Levels(preset).train()
        pairs = _pairs(mappers, draw(0))
        for level, d in ((levels.of_rgb, pairs.d_rgb), (levels.of_3d, pairs.d_3d)):
            # It starts at the mean, so that the first steps need not look for the scale.
            torch.nn.init.constant_(level.fc2.bias, math.log(max(float(d.mean()), 1e-6)))
        adam = torch.optim.Adam(levels.parameters(), lr=RATE)
        for step in range(steps):
            for group in adam.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            pairs = _pairs(mappers, draw(step))
            loss = _loss(levels.of_rgb, pairs.points, pairs.d_rgb) + _loss(levels.of_3d, pairs.rgb, pairs.d_3d)
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if bool(torch.isfinite(loss)):
                adam.step()
        levels.eval().requires_grad_(False)
        found: tuple[list[Tensor], list[Tensor]] = ([], [])
        for batch in (draw(step) for step in range(steps, steps + RANGE_STEPS)):
            found[0].append(levels.of_rgb.logarithm(batch.points))
            found[1].append(levels.of_3d.logarithm(batch.rgb))
        for level, values in zip((levels.of_rgb, levels.of_3d), found):
            every = torch.cat(values).sort().values
            tail = int(TAIL * (len(every) - 1))
            level.limits.copy_(torch.stack([every[tail], every[len(every) - 1 - tail]]))
    return levels


def _loss(level: Level, features: Tensor, d: Tensor) -> Tensor:
    logarithm = level.logarithm(features)
    return (logarithm + d * torch.exp(-logarithm)).mean()


@torch.no_grad()
def _pairs(mappers: Mappers, batch: Batch) -> _Pairs:
    d_rgb = distance(batch.rgb, mappers.points_to_rgb(batch.points))
    d_3d = distance(batch.points, mappers.rgb_to_3d(batch.rgb))
    return _Pairs(batch.rgb, batch.points, d_rgb, d_3d)


def over_levels(levels: Levels | None, batch: Batch, d_rgb: Tensor, d_3d: Tensor) -> Iterator[Tensor]:
    """Both distances of a batch, relative to their levels where there are any."""
    yield d_rgb if levels is None else d_rgb / levels.of_rgb(batch.points)
    yield d_3d if levels is None else d_3d / levels.of_3d(batch.rgb)
