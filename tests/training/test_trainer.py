"""The loss, the sampler and the loop in small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.models.interpolate import bilinear as reference_bilinear
from edge_ad.presets import Preset
from edge_ad.runtime.preprocess import Scene
from edge_ad.training.features import Job, Recipe, extract, load
from edge_ad.training.prompts import class_prompts
from edge_ad.training.sampling import Batch, PixelSampler, Standard, bilinear
from edge_ad.training.text import embed_prompts
from edge_ad.training.trainer import TEXT_EVERY, Learner, TrainingPlan, cosine, loss_curve, train
from tests.training.tiny import tiny_dataset, tiny_preset

PLAN = TrainingPlan(samples_per_step=2, min_steps=12)


def plain_preset() -> Preset:
    """The tiny preset with tokens as they are: a feature has as many channels as a token."""
    return tiny_preset(rgb={"lift": 0.0}, points={"lift": 0.0}, mappers={"condition": "none"})


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> PixelSampler:
    preset = plain_preset()
    jobs = [Job(i) for i in tiny_dataset({"hex_nut": (2, 0), "cookie": (1, 0)}).items]
    sources, _ = extract(Recipe(preset, {"cookie": Scene()}, 0.05, tmp_path_factory.mktemp("cache")), jobs)
    rgb = Standard(
        np.eye(preset.feature_rgb, preset.dim_rgb, dtype=np.float32), np.zeros(preset.feature_rgb, np.float32)
    )
    points = Standard(
        np.eye(preset.feature_points, preset.dim_points, dtype=np.float32), np.zeros(preset.feature_points, np.float32)
    )
    return PixelSampler(preset, sources, ("hex_nut", "cookie"), rgb, points)


def prompts() -> np.ndarray:
    return embed_prompts(plain_preset(), [class_prompts("hex nut"), class_prompts("cookie")])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 6), dim=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_cosine_and_its_gradients_are_torch_s(rows: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y, g = (torch.randn(rows, dim, generator=generator, dtype=torch.float64) for _ in range(3))
    ours: list[torch.Tensor | None] = []
    theirs: list[torch.Tensor | None] = []
    for function, found in ((cosine, ours), (lambda a, b: F.cosine_similarity(a, b, dim=-1), theirs)):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        out = function(a, b)
        (out * g[:, 0]).sum().backward()
        found += [out.detach(), a.grad, b.grad]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("grid", "size"), [(8, 64), (28, 224), (7, 30)])
def test_bilinear_table_is_the_reference_interpolation(grid: int, size: int) -> None:
    tokens = torch.randn(grid * grid, 5, generator=torch.Generator().manual_seed(0))
    index, weight = bilinear(grid, size)
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-6)
    ours = (tokens[index] * torch.from_numpy(weight)[..., None]).sum(1)
    torch.testing.assert_close(ours, reference_bilinear(tokens, size), rtol=1e-4, atol=1e-5)


def test_sampled_pixels_are_those_of_the_tokens(sampler: PixelSampler) -> None:
    f = load(sampler.sources[0])
    rows = np.arange(0, len(f.pixels), 7)
    rgb, points = sampler.interpolate(0, rows)
    full = reference_bilinear(torch.from_numpy(f.rgb_tokens), 64)[f.pixels[rows]]
    torch.testing.assert_close(rgb, full, rtol=1e-4, atol=1e-5)
    by_hand = (f.point_tokens[f.interp_index[rows]] * f.interp_weight[rows][..., None]).sum(1)
    np.testing.assert_allclose(points.numpy(), by_hand, rtol=1e-4, atol=1e-5)


def test_every_sample_once_an_epoch_and_the_same_step_again(sampler: PixelSampler) -> None:
    assert sampler.steps_per_epoch(2) == 2
    for epoch in range(3):
        a, b = sampler.step(2 * epoch, 2, 60, 7), sampler.step(2 * epoch + 1, 2, 60, 7)
        assert len(a.rgb) == len(b.rgb) == 60
        # One of the three samples is a cookie (class 1); it comes in just one of the two steps.
        assert [bool((x.classes == 1).any()) for x in (a, b)].count(True) == 1
    again = sampler.step(3, 2, 60, 7)
    assert torch.equal(again.rgb, sampler.step(3, 2, 60, 7).rgb)
    assert not torch.equal(again.rgb, sampler.step(3, 2, 60, 8).rgb)


def test_a_small_memory_budget_changes_no_bit(sampler: PixelSampler) -> None:
    small = PixelSampler(
        plain_preset(),
        sampler.sources,
        ("hex_nut", "cookie"),
        *sampler.standards,
        memory_bytes=1,
    )
    for step in range(4):
        assert torch.equal(small.step(step, 2, 40, 1).points, sampler.step(step, 2, 40, 1).points)


@pytest.mark.parametrize(("beta", "every"), [(0.5, 1), (0.0, TEXT_EVERY)])
def test_loss_is_the_sum_of_the_four_terms_of_the_paper(sampler: PixelSampler, beta: float, every: int) -> None:
    preset = plain_preset()
    learner = Learner(replace(preset, fusion=replace(preset.fusion, beta=beta)), prompts()).eval()
    batch = sampler.step(0, 2, 50, 3)
    m = learner.mappers
    anchors = learner.anchors()
    assert anchors is not None and m.rgb_to_text is not None and m.points_to_text is not None
    own = anchors[batch.classes]
    pairs = (
        (m.rgb_to_3d(batch.rgb), batch.points),
        (m.points_to_rgb(batch.points), batch.rgb),
        (own[::every], m.rgb_to_text(batch.rgb[::every])),
        (own[::every], m.points_to_text(batch.points[::every])),
    )
    expected = sum((1 - F.cosine_similarity(a, b, dim=-1)).mean() for a, b in pairs)
    torch.testing.assert_close(learner.loss(batch), expected, rtol=1e-5, atol=1e-6)


class Poisoned(PixelSampler):
    """Gives NaN in steps 3 and 5, and infinity in step 7."""

    def step(self, number: int, samples_per_step: int, pixels: int, seed: int) -> Batch:
        batch = super().step(number, samples_per_step, pixels, seed)
        if number in (3, 5, 7):
            batch.rgb[0, 0] = torch.inf if number == 7 else torch.nan
        return batch


def test_steps_that_are_not_finite_are_skipped_and_counted(sampler: PixelSampler) -> None:
    poisoned = Poisoned(plain_preset(), sampler.sources, ("hex_nut", "cookie"), *sampler.standards)
    trained = train(plain_preset(), poisoned, prompts(), PLAN)
    assert trained.skipped == 3
    assert np.flatnonzero(np.isnan(trained.losses)).tolist() == [3, 5, 7]
    assert all(bool(torch.isfinite(p).all()) for p in trained.learner.parameters())


class AllPoison(PixelSampler):
    def step(self, number: int, samples_per_step: int, pixels: int, seed: int) -> Batch:
        batch = super().step(number, samples_per_step, pixels, seed)
        batch.points.fill_(torch.nan)
        return batch


def test_a_training_without_one_finite_step_is_an_error(sampler: PixelSampler, tmp_path: Path) -> None:
    poisoned = AllPoison(plain_preset(), sampler.sources, ("hex_nut", "cookie"), *sampler.standards)
    with pytest.raises(EdgeAdError, match="finite"):
        train(plain_preset(), poisoned, prompts(), PLAN)


def test_training_leaves_global_state_alone(sampler: PixelSampler) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    train(plain_preset(), sampler, prompts(), PLAN)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_loss_curve() -> None:
    losses = np.array([4, 2, np.nan, np.nan, 1, 1], np.float32)
    assert loss_curve(losses, 3) == [3.0, 3.0, 1.0]
    assert loss_curve(np.full(3, np.nan, np.float32)) == []


@pytest.mark.parametrize("field", ["samples_per_step", "min_steps", "threads"])
def test_a_plan_names_its_bad_field(field: str) -> None:
    with pytest.raises(EdgeAdError, match=field):
        TrainingPlan(**{field: 0})
