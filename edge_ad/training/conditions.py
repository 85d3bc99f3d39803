"""The affine maps that make features relative to their class (:mod:`edge_ad.models.condition`), in closed form.

For each class and modality: whitening by the class's own covariance, then by the covariance of what the other modality
does not foretell there (:mod:`edge_ad.training.residual`), so that a distance to a prediction is a Mahalanobis distance
of that class's residual.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edge_ad.models.condition import Condition, Conditions, class_code
from edge_ad.presets import Points, Preset, Rgb
from edge_ad.training.residual import residual_covariance
from edge_ad.training.sampling import F64, Batch, PixelSampler, joined, scaling

PIXELS = 400
"""Pixels a sample."""
MOST_PIXELS = 40_000
"""Pixels a class."""


def fit_conditions(preset: Preset, sampler: PixelSampler, classes: int, rows: Sequence[int], seed: int) -> Conditions:
    """The conditions of ``classes`` classes; only the given ``rows`` are fitted, the others stay the identity.

    Parameters
    ----------
    sampler : gives shared features of training samples. rows : of the anchors; each has samples.
    """
    made = Conditions(classes, preset.feature_rgb, preset.feature_points)
    counts = [sum(sampler.class_index[s.class_name] == row for s in sampler.sources) for row in range(classes)]
    drawn: dict[int, list[Batch]] = {row: [] for row in rows}
    for source, batch in zip(sampler.sources, sampler.every(PIXELS, seed)):
        row = sampler.class_index[source.class_name]
        if row in drawn:
            # The rows come sorted by pixel: every so many-th keeps the whole part in view.
            step = -(-PIXELS * counts[row] // MOST_PIXELS)
            drawn[row].append(Batch(batch.rgb[::step], batch.points[::step], batch.classes[::step] * 0))
    for row, batches in drawn.items():
        _fit_class(preset, made, row, joined(batches), seed)
    return made.requires_grad_(False)


def _fit_class(preset: Preset, made: Conditions, row: int, pixels: Batch, seed: int) -> None:
    rgb, rgb_mean, rgb_first = _whitened(pixels.rgb[:, : preset.dim_rgb], preset.rgb)
    points, points_mean, points_first = _whitened(pixels.points[:, : preset.dim_points], preset.points)
    of_rgb = residual_covariance([Batch(rgb, points, pixels.classes)], 1, seed)
    of_points = residual_covariance([Batch(points, rgb, pixels.classes)], 1, seed)
    ridge = preset.rgb.residual_ridge
    _put(made.rgb, row, preset.rgb.lift, scaling(of_rgb, "whiten", ridge) @ rgb_first, rgb_mean)
    _put(made.points, row, preset.points.lift, scaling(of_points, "whiten", ridge) @ points_first, points_mean)


def _whitened(lifted: Tensor, section: Rgb | Points) -> tuple[Tensor, F64, F64]:
    """Features (N, D) without their constants -> of unit variance, their mean (D,) and the weight (D, D)."""
    x = lifted.double().numpy() * (np.sqrt(lifted.shape[1]) / section.lift)
    mean = x.mean(0)
    weight = scaling(np.cov(x.T, bias=True), "whiten", section.ridge)
    return torch.from_numpy((x - mean) @ weight.T).float(), mean, weight


def _put(condition: Condition, row: int, lift: float, weight: F64, mean: F64) -> None:
    """``weight (x - mean)`` of the features before they were lifted, as a map of the lifted ones; then the code."""
    d = len(mean)
    condition.weight[row].zero_()
    condition.weight[row, :d, :d] = torch.from_numpy(weight).float()
    condition.offset[row, :d] = torch.from_numpy(-weight @ mean * (lift / np.sqrt(d))).float()
    condition.offset[row, d:] = torch.from_numpy(class_code(row))
