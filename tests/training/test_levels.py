"""The fit of the expected distances and the second whitening."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edge_ad.models.distance import distance
from edge_ad.training.levels import fit_levels
from edge_ad.training.residual import residual_covariance
from edge_ad.training.sampling import Batch, Standard, scaling, whitened_again

from .tiny import tiny_preset


def _noisy(step: int, pixels: int = 512) -> tuple[Batch, torch.Tensor]:
    """Point features whose first channel says how far the colour is from its prediction."""
    preset = tiny_preset()
    rng = torch.Generator().manual_seed(step)
    points = torch.randn(pixels, preset.feature_points, generator=rng)
    spread = torch.where(points[:, 0] > 0, 0.4, 0.04)
    rgb = torch.zeros(pixels, preset.feature_rgb)
    rgb[:, 0] = 1
    rgb[:, 1:] += spread[:, None] * torch.randn(pixels, preset.feature_rgb - 1, generator=rng)
    return Batch(rgb, points, torch.zeros(pixels, dtype=torch.long)), spread


class _Constant(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = torch.nn.functional.one_hot(torch.tensor(0), dim).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out.expand(len(x), -1)


def _mappers() -> SimpleNamespace:
    preset = tiny_preset()
    return SimpleNamespace(points_to_rgb=_Constant(preset.feature_rgb), rgb_to_3d=_Constant(preset.feature_points))


def test_levels_follow_what_the_other_modality_foretells() -> None:
    levels = fit_levels(tiny_preset(), _mappers(), lambda step: _noisy(step)[0])  # type: ignore[arg-type]
    batch, spread = _noisy(10_000, 4096)
    d = distance(batch.rgb, _mappers().points_to_rgb(batch.points))
    clear = batch.points[:, 0].abs() > 0.5  # at the step itself a smooth level lies between
    wide, near = clear & (spread > 0.1), clear & (spread < 0.1)
    assert float(d[wide].mean() / d[near].mean()) > 3
    relative = d / levels.of_rgb(batch.points)
    assert float(relative[wide].mean()) == pytest.approx(1, abs=0.2)
    assert float(relative[near].mean()) == pytest.approx(1, abs=0.2)


def test_the_fit_is_the_same_to_the_bit() -> None:
    args = (tiny_preset(), _mappers(), lambda step: _noisy(step)[0])
    one, two = (fit_levels(*args, steps=20).state_dict() for _ in range(2))  # type: ignore[arg-type]
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_limits_enclose_most_of_the_training_pixels() -> None:
    levels = fit_levels(tiny_preset(), _mappers(), lambda step: _noisy(step)[0], steps=50)  # type: ignore[arg-type]
    low, high = levels.of_rgb.limits
    logs = levels.of_rgb.logarithm(torch.cat([_noisy(n)[0].points for n in range(90, 120)]))
    inside = float(((logs >= low) & (logs <= high)).float().mean())
    assert 0.97 < inside < 1


def _related(rows: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((rows, 4))
    noise = rng.standard_normal((rows, 3)) * np.array([1.0, 0.1, 0.5])
    classes = rng.integers(0, 2, rows)
    foretold = np.stack([points[:, 0], 3 * np.tanh(points[:, 1]), points[:, 2] + 5 * classes], 1)
    return Batch(
        torch.from_numpy(foretold + noise).float(), torch.from_numpy(points).float(), torch.from_numpy(classes)
    )


def test_the_residual_is_what_neither_the_class_nor_the_points_foretell() -> None:
    found = residual_covariance([_related(4000, s) for s in range(5)], classes=2, seed=1)
    assert np.allclose(found, found.T)
    assert np.sqrt(np.diag(found)) == pytest.approx([1.0, 0.1, 0.5], rel=0.1)
    whole = np.cov(np.concatenate([_related(4000, s).rgb.numpy() for s in range(5)]).T)
    assert (np.diag(found) < np.diag(whole)).all()


@pytest.mark.parametrize("lift", [0.0, 1.0])
def test_whitening_again_gives_the_residual_unit_variance(lift: float) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((20_000, 3)) @ rng.standard_normal((3, 3))
    first = scaling(np.cov(tokens.T), "whiten", 1e-9)
    offset = np.zeros(3)
    if lift:
        weight = np.vstack([first * lift / np.sqrt(3), np.zeros((1, 3))]).astype(np.float32)
        before = Standard(weight, np.append(offset, 1.0).astype(np.float32))
    else:
        before = Standard(first.astype(np.float32), offset.astype(np.float32))
    spread = np.diag([4.0, 1.0, 0.25])
    after = whitened_again(before, spread, 1e-9, lift)(tokens.astype(np.float32))
    scale = lift / np.sqrt(3) if lift else 1.0
    if lift:
        assert np.allclose(after[:, -1], 1)
    variances = np.sort(np.var(after[:, :3] / scale, axis=0))
    assert variances == pytest.approx([0.25, 1.0, 4.0], rel=0.05)
