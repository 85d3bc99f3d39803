"""Pretraining: shapes that are deterministic and organised, steps that learn, runs that repeat and resume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.cli.pretrain_points import command
from edge_ad.errors import EdgeAdError
from edge_ad.models.pointmae import load_point_encoder
from edge_ad.training.pretrain import solids as sd
from edge_ad.training.pretrain.mae import (
    COORDINATE_SCALE,
    MaskedAutoencoder,
    Sizes,
    augment,
    chamfer,
    local_geometry,
    split,
)
from edge_ad.training.pretrain.pool import Pool, group_view, load_or_make_pool, make_pool
from edge_ad.training.pretrain.shapes import FAMILIES, draw
from edge_ad.training.pretrain.train import Recipe, Trainer, pretrain, rate

TINY = Sizes(dim=12, depth=2, heads=2, taps=(0, 1), widths=(8, 8, 16), group_size=8, decoder_depth=1)
RECIPE = Recipe(steps=6, batch=4, reconstruct=8, learning_rate=3e-3, report_every=2, save_every=3)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(8, groups=32, size=8, seed=3, grid=56)


# --- shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_view_is_deterministic_and_organised(seed: int) -> None:
    view, again = draw(seed, size=56), draw(seed, size=56)
    assert np.array_equal(view.xyz, again.xyz) and np.array_equal(view.valid, again.valid)
    assert view.xyz.shape == (56, 56, 3) and view.xyz.dtype == np.float32 and view.valid.shape == (56, 56)
    assert view.kind in FAMILIES and np.isfinite(view.xyz).all()
    assert not view.xyz[~view.valid].any() and not view.clean[~view.valid].any()
    assert (view.xyz[view.valid][:, 2] > 0).all()
    # Organised: along a row x grows with the column, along a column y grows with the row (a camera's pixel order).
    rows, cols = np.nonzero(view.valid)
    assert np.corrcoef(view.xyz[rows, cols, 0], cols)[0, 1] > 0.95
    assert np.corrcoef(view.xyz[rows, cols, 1], rows)[0, 1] > 0.95


def test_other_seeds_give_other_shapes_and_all_families() -> None:
    views = [draw(seed, size=56) for seed in range(30)]
    assert {v.kind for v in views} == set(FAMILIES)
    assert len({float(v.clean.sum()) for v in views}) == len(views)


def test_noise_is_along_depth_alone_and_of_the_asked_size() -> None:
    view = draw(1, size=112, noise=0.002)
    error = (view.xyz - view.clean)[view.valid]
    extent = np.linalg.norm(np.ptp(view.clean[view.valid][:, :2], axis=0))
    assert not error[:, :2].any()
    assert error[:, 2].std() == pytest.approx(0.002 * extent, rel=0.15)
    quiet = draw(1, size=112, noise=0.0)
    assert np.array_equal(quiet.xyz, quiet.clean)


@pytest.mark.parametrize(
    ("solid", "middle"),
    [
        (sd.box(np.array([0.5, 0.4, 0.3], np.float32)), 0.3),
        (sd.box(np.array([0.5, 0.4, 0.3], np.float32), 0.1), 0.3),
        (sd.cylinder(0.5, 0.2), 0.2),
        (sd.cone(0.6, 0.3, 0.4), 0.4),
        (sd.superquadric(np.array([0.5, 0.6, 0.7], np.float32), 2.0), 0.7),
        (sd.prism(6, 0.5, 0.25), 0.25),
        (sd.gear(12, 0.6, 0.08, 0.35), 0.35),
        (sd.union(sd.cylinder(0.5, 0.2), sd.cylinder(0.3, 0.4)), 0.4),
        (sd.difference(sd.cylinder(0.5, 0.4), sd.moved(sd.cylinder(0.2, 0.3), np.eye(3), np.array([0, 0, -0.4]))), 0.1),
    ],
)
def test_rays_find_the_surface_where_it_is(solid: sd.Solid, middle: float) -> None:
    origins = np.array([[0, 0, 0], [5, 5, 0]], np.float32)
    rays = np.array([[0, 0, 1], [0, 0, 1]], np.float32)
    shifted = sd.moved(solid, np.eye(3, dtype=np.float32), np.array([0, 0, 4], np.float32))
    hit, miss = sd.trace(shifted, origins, rays, 2.0, 6.0)
    # The near side: at -middle for symmetric bodies; the cut one is hollowed from the camera's side.
    assert hit == pytest.approx(4 - abs(middle) if middle != 0.1 else 4 - 0.1, abs=2e-3) and np.isnan(miss)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 5))
def test_solids_never_overstate_the_distance(seed: int, kind: int) -> None:
    """A step of the claimed distance in any direction cannot cross the surface (what sphere tracing rests on)."""
    rng = np.random.default_rng(seed)
    solid = [
        sd.box(np.array([0.5, 0.4, 0.3], np.float32), 0.05),
        sd.cylinder(0.5, 0.3),
        sd.cone(0.6, 0.2, 0.4),
        sd.torus(0.5, 0.2),
        sd.superquadric(np.array([0.4, 0.6, 0.8], np.float32), 4.0),
        sd.prism(5, 0.5, 0.3),
    ][kind]
    points = rng.uniform(-1.5, 1.5, (200, 3)).astype(np.float32)
    distance = solid(points)
    outside = distance > 0
    direction = rng.standard_normal((200, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    there = (points + 0.999 * distance[:, None] * direction).astype(np.float32)
    assert (solid(there)[outside] > -1e-4).all()


# --- groups and targets ---------------------------------------------------------------------------------------------


def test_groups_are_relative_to_their_centres_and_the_radius_is_the_scale() -> None:
    view = draw(2, size=56)
    groups, clean, centers = group_view(view, 32, 8, scale=0.8)
    assert groups.shape == clean.shape == (32, 8, 3) and centers.shape == (32, 3)
    assert np.abs(groups[:, 0]).max() < 1e-6  # the nearest point of a centre is itself
    assert np.linalg.norm(centers, axis=1).max() == pytest.approx(0.8, rel=0.02)


def test_the_pool_is_cached_and_the_same(tmp_path: Path) -> None:
    made = load_or_make_pool(tmp_path, 3, 16, 8, 5, grid=56)
    read = load_or_make_pool(tmp_path, 3, 16, 8, 5, grid=56)
    assert len(list(tmp_path.iterdir())) == 3
    for name in ("groups", "clean", "centers"):
        assert np.array_equal(getattr(made, name), getattr(read, name))


def test_local_geometry_tells_slope_and_curvature_and_ignores_nothing_else() -> None:
    axis = torch.linspace(-1, 1, 6) * 0.04
    y, x = torch.meshgrid(axis, axis, indexing="ij")

    def target(z: torch.Tensor) -> torch.Tensor:
        return local_geometry(torch.stack([x, y, z], -1).reshape(1, -1, 3))[0]

    flat, tilted, bowl = target(0 * x), target(0.5 * x), target(8 * x * x)
    assert flat[1:6].abs().max() < 1e-5
    assert tilted[1] == pytest.approx(np.arctan(0.5), abs=0.03) and tilted[2].abs() < 1e-5
    assert bowl[3] > 0.2 and bowl[5].abs() < 0.05
    rough = target(0.004 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    assert rough[6] > flat[6] + 0.2


def test_chamfer_against_brute_force() -> None:
    a, b = torch.randn(3, 7, 3), torch.randn(3, 7, 3)
    d = (a[:, :, None] - b[:, None]).square().sum(-1)
    assert chamfer(a, b) == pytest.approx(float(d.amin(2).mean() + d.amin(1).mean()), rel=1e-4)
    assert chamfer(a, a[:, torch.randperm(7)]) < 1e-5


def test_augmentation_is_rigid_up_to_scale_and_keeps_groups_with_their_centres(pool: Pool) -> None:
    groups, clean = (torch.from_numpy(v[:2].astype(np.float32)) for v in (pool.groups, pool.clean))
    centers = torch.from_numpy(pool.centers[:2])
    _, turned, moved = augment(groups, clean, centers, torch.Generator().manual_seed(1), noise=(0.0, 0.0))
    before = torch.cdist((clean + centers[:, :, None]).reshape(2, -1, 3), centers)
    after = torch.cdist((turned + moved[:, :, None]).reshape(2, -1, 3), moved)
    ratio = after.sum((1, 2)) / before.sum((1, 2))
    assert torch.allclose(after, before * ratio[:, None, None], atol=1e-3)
    assert ((ratio > 0.89) & (ratio < 1.11)).all()


def test_visible_and_masked_groups_are_disjoint() -> None:
    visible, masked = split(20, 6, 10, 3, torch.Generator().manual_seed(0))
    for v, m in zip(visible, masked):
        assert len(set(v.tolist()) | set(m.tolist())) == 16


# --- training -------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_on_shapes_it_has_not_seen(pool: Pool) -> None:
    held_out = make_pool(4, groups=32, size=8, seed=9, grid=56)
    trainer = Trainer(TINY, Recipe(steps=60, batch=8, reconstruct=8, learning_rate=3e-3), pool)
    trainer.settle_statistics(4)
    before = trainer.evaluate(held_out)
    for _ in range(60):
        terms = trainer.step()
        assert np.isfinite(list(terms.values())).all()
    trainer.settle_statistics(8)
    after = trainer.evaluate(held_out)
    assert after["chamfer"] < 0.95 * before["chamfer"] and after["geometry"] < 0.8 * before["geometry"]
    # BatchNorm's running statistics serve as well as each batch's own.
    own = trainer.evaluate(held_out, training_statistics=True)
    assert after["total"] == pytest.approx(own["total"], rel=0.2)


def test_the_masked_groups_are_not_seen(pool: Pool) -> None:
    """The reconstruction of masked groups must not change with their content."""
    model = MaskedAutoencoder(TINY).eval()
    groups, centers = torch.from_numpy(pool.groups[:1].astype(np.float32)), torch.from_numpy(pool.centers[:1])
    visible, masked = split(32, 12, 10, 1, torch.Generator().manual_seed(0))

    def points(values: torch.Tensor) -> torch.Tensor:
        features = model.encode(values[:, visible[0]], centers[:, visible[0]])
        return model.decode(features[..., -TINY.dim :], centers[:, visible[0]], centers[:, masked[0]])

    changed = groups.clone()
    changed[:, masked[0]] = 0
    assert torch.equal(points(groups), points(changed)) and points(groups).shape == (1, 10, 8, 3)


def run(pool: Pool, folder: Path, steps: int = 6, recipe: Recipe = RECIPE) -> Trainer:
    trainer = Trainer(TINY, recipe, pool)
    for _ in range(steps):
        trainer.step()
    trainer.save(folder / "state.pt")
    return trainer


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pool: Pool, tmp_path: Path) -> None:
    one, two = run(pool, tmp_path), run(pool, tmp_path)
    other = run(pool, tmp_path, recipe=Recipe(steps=6, batch=4, reconstruct=8, seed=7))
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key])
    assert not torch.equal(one.model.increase_dim.weight, other.model.increase_dim.weight)


def test_a_stopped_run_continues_as_if_it_had_not_stopped(pool: Pool, tmp_path: Path) -> None:
    whole = run(pool, tmp_path, 6)
    run(pool, tmp_path, 3)
    resumed = Trainer(TINY, RECIPE, pool)
    resumed.resume(tmp_path / "state.pt")
    assert resumed.count == 3
    for _ in range(3):
        resumed.step()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


def test_the_state_of_another_recipe_is_refused(pool: Pool, tmp_path: Path) -> None:
    run(pool, tmp_path, 1)
    with pytest.raises(EdgeAdError, match="another recipe"):
        Trainer(TINY, Recipe(steps=9), pool).resume(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"torn")
    with pytest.raises(EdgeAdError, match="not a training state"):
        Trainer(TINY, RECIPE, pool).resume(tmp_path / "state.pt")


def test_a_pool_of_another_group_size_is_refused(pool: Pool) -> None:
    with pytest.raises(EdgeAdError, match="groups of 8 points"):
        Trainer(Sizes(group_size=32), RECIPE, pool)


def test_saved_weights_load_as_an_encoder_of_radius_units(pool: Pool, tmp_path: Path) -> None:
    trainer = Trainer(TINY, RECIPE, pool)
    out, log = tmp_path / "weights.safetensors", tmp_path / "run.log"
    said: list[str] = []
    final = pretrain(trainer, pool, out, log, tmp_path / "state.pt", said.append)
    text = log.read_text()
    assert text.splitlines() == said and "seed 115" in text and text.count("step ") >= 3
    assert np.isfinite(list(final.values())).all()
    encoder = load_point_encoder(out, dim=12, depth=2, heads=2, taps=(0, 1))
    groups, centers = torch.from_numpy(pool.groups[:2].astype(np.float32)), torch.from_numpy(pool.centers[:2])
    # The factor is in the weights: the runtime gives plain groups, training gave groups times COORDINATE_SCALE.
    expected = trainer.model.eval().encode(groups, centers)
    assert COORDINATE_SCALE != 1 and torch.allclose(encoder(groups, centers), expected, atol=1e-5)


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [rate(step, Recipe(steps=100)) for step in range(100)]
    top = int(np.argmax(rates))
    assert 0 < top < 10 and rates[top] == pytest.approx(1e-3, rel=0.01) and rates[-1] < 3e-5
    assert all(a <= b for a, b in zip(rates[:top], rates[1 : top + 1])) and rates[top:] == sorted(rates[top:])[::-1]


def test_the_command_names_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--out", str(tmp_path / "w.safetensors"), "--steps", "0"])
    assert result.exit_code == 2 and "--steps" in result.output


@pytest.mark.slow
def test_the_command_trains_the_compact_encoder(tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    args = ["--out", str(out), "--work", str(tmp_path / "work"), "--steps", "2", "--pool", "8", "--json"]
    result = CliRunner().invoke(command, args)
    assert result.exit_code == 0, result.output
    points = torch.from_numpy(np.zeros((1, 4, 32, 3), np.float32))
    encoder = load_point_encoder(out, dim=96, depth=6, heads=6, taps=(1, 3, 5))
    assert encoder(points, torch.zeros(1, 4, 3)).shape == (1, 4, 288)
