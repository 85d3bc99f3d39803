"""The class's own whitening: unit residuals in each class, whatever the others look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edge_ad.models.condition import class_code
from edge_ad.presets import CODE, Preset
from edge_ad.runtime.preprocess import Scene
from edge_ad.training import conditions as module
from edge_ad.training.conditions import fit_conditions
from edge_ad.training.features import Job, Recipe, extract
from edge_ad.training.sampling import Batch, PixelSampler, joined, relative, standards

from .tiny import tiny_dataset, tiny_preset

NAMES = ("hex_nut", "cookie")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Preset, PixelSampler]:
    preset = tiny_preset(rgb={"ridge": 1e-9, "residual_ridge": 1e-9}, points={"ridge": 1e-9, "standardize": "whiten"})
    jobs = [Job(i) for i in tiny_dataset({"hex_nut": (3, 0), "cookie": (3, 0)}).items]
    recipe = Recipe(preset, {name: Scene() for name in NAMES}, 0.05, tmp_path_factory.mktemp("cache"))
    sources, _ = extract(recipe, jobs)
    return preset, PixelSampler(preset, sources, NAMES, *standards(preset, sources))


def of_one(sampler: PixelSampler, row: int) -> Batch:
    every = zip(sampler.sources, sampler.every(module.PIXELS, 0))
    return joined([b for s, b in every if sampler.class_index[s.class_name] == row])


@pytest.mark.parametrize("row", [0, 1])
def test_what_the_other_modality_does_not_foretell_is_white(fitted: tuple[Preset, PixelSampler], row: int) -> None:
    preset, sampler = fitted
    made = fit_conditions(preset, sampler, 2, [0, 1], 0)
    pixels = of_one(sampler, row)
    rgb, points = made(pixels.rgb, pixels.points, row)
    for own, other, lift, dim in (
        (rgb, points, preset.rgb.lift, preset.dim_rgb),
        (points, rgb, preset.points.lift, preset.dim_points),
    ):
        np.testing.assert_allclose(own[:, dim:], np.broadcast_to(class_code(row), (len(own), CODE)), rtol=1e-5)
        x = own[:, :dim].double().numpy() * np.sqrt(dim) / lift
        assert np.abs(x.mean(0)).max() < 0.05
        # A linear prediction leaves at least what the fitted one (random features beside the linear ones) leaves.
        given = np.c_[np.ones(len(x)), other.double().numpy()]
        left = x - given @ np.linalg.lstsq(given, x, rcond=1e-9)[0]
        variance = np.linalg.eigvalsh(left.T @ left / len(left))
        assert variance.min() > 0.8


def test_a_class_does_not_see_the_others(fitted: tuple[Preset, PixelSampler]) -> None:
    preset, sampler = fitted
    both, one = fit_conditions(preset, sampler, 2, [0, 1], 0), fit_conditions(preset, sampler, 2, [1], 0)
    for name, value in both.state_dict().items():
        assert torch.equal(one.get_buffer(name)[1], value[1])
    assert torch.equal(one.rgb.weight[0], torch.eye(preset.feature_rgb))


def test_pixels_of_several_classes_each_by_their_own(fitted: tuple[Preset, PixelSampler]) -> None:
    preset, sampler = fitted
    made = fit_conditions(preset, sampler, 2, [0, 1], 0)
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randn(9, preset.feature_rgb, generator=generator)
    points = torch.randn(9, preset.feature_points, generator=generator)
    classes = torch.tensor([0, 1, 1, 0, 0, 1, 0, 1, 1])
    batch = relative(rgb, points, classes, made)
    for i, row in enumerate(classes.tolist()):
        own = made(rgb[i : i + 1], points[i : i + 1], row)
        torch.testing.assert_close(batch.rgb[i : i + 1], own[0])
        torch.testing.assert_close(batch.points[i : i + 1], own[1])
    assert batch.for_text == (rgb, points)
    assert relative(rgb, points, classes, None).for_text == (rgb, points)


def test_a_batch_holds_both_forms(fitted: tuple[Preset, PixelSampler], tmp_path: Path) -> None:
    preset, sampler = fitted
    made = fit_conditions(preset, sampler, 2, [0, 1], 0)
    own = PixelSampler(preset, sampler.sources, NAMES, *sampler.standards, of_class=made)
    plain, conditioned = sampler.step(0, 3, 60, 5), own.step(0, 3, 60, 5)
    assert conditioned.shared is not None and plain.shared is None
    assert torch.equal(conditioned.shared[0], plain.rgb) and torch.equal(conditioned.shared[1], plain.points)
    expected = relative(plain.rgb, plain.points, plain.classes, made)
    torch.testing.assert_close(conditioned.rgb, expected.rgb)
    torch.testing.assert_close(conditioned.points, expected.points)
