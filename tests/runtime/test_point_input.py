"""From valid points to groups: unit, sampling lattice, row order, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_ad.errors import InvalidFrame
from edge_ad.frame import Sample, SampleTransform
from edge_ad.presets import Points, load_preset
from edge_ad.runtime.point_input import normalise, prepare_points, radius
from edge_ad.runtime.pointops import farthest_point_sample, k_nearest, three_nearest

SIZE = 24
POINTS = replace(load_preset("compact").points, groups=16, group_size=8, stride=1, normalize="none")


def sample(valid: np.ndarray | None = None) -> Sample:
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    xyz = np.stack([x * 0.002, y * 0.002, 0.4 + 0.01 * np.sin(x / 4)], axis=-1).astype(np.float32)
    valid = np.hypot(y - 12, x - 12) < 9 if valid is None else valid
    xyz[~valid] = 0
    return Sample(
        np.zeros((3, SIZE, SIZE), np.float32), xyz, valid, ~valid, SampleTransform(0, 0, SIZE, SIZE, SIZE, SIZE)
    )


def test_rows_are_the_valid_pixels_row_major() -> None:
    s = sample()
    points = s.xyz[s.valid]
    got = prepare_points(s, POINTS, 0.05)
    assert got.groups.shape == (16, 8, 3) and got.centers.shape == (16, 3)
    assert (got.groups.dtype, got.centers.dtype) == (np.float32, np.float32)
    chosen = farthest_point_sample(points, 16)
    np.testing.assert_array_equal(got.centers, points[chosen])
    neighbours = k_nearest(points, points[chosen], 8)
    np.testing.assert_array_equal(got.groups, points[neighbours] - got.centers[:, None])
    index, weight = three_nearest(points, got.centers)
    np.testing.assert_array_equal(got.interp_index, index)
    np.testing.assert_array_equal(got.interp_weight, weight)


def test_two_threads_find_what_one_does() -> None:
    s = sample()
    preset = replace(POINTS, stride=2, pool=3)
    one, two = (prepare_points(s, preset, 0.05, threads) for threads in (1, 2))
    for name in ("groups", "centers", "interp_index", "interp_weight", "pool_index"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_the_stride_thins_what_groups_are_drawn_from_but_not_the_pixels() -> None:
    s = sample()
    preset = replace(POINTS, stride=2)
    lattice = np.zeros_like(s.valid)
    lattice[::2, ::2] = True
    got = prepare_points(s, preset, 0.05)
    drawn = s.xyz[s.valid & lattice]
    np.testing.assert_array_equal(got.centers, drawn[farthest_point_sample(drawn, 16)])
    assert len(got.interp_index) == int(s.valid.sum())


@pytest.mark.parametrize("how", ["none", "unit-sphere", "fixed"])
def test_units(how: str) -> None:
    points = np.random.default_rng(0).normal([0.1, 0.2, 0.6], 0.02, (500, 3)).astype(np.float32)
    got = normalise(points, how, 0.05)
    assert got.dtype == np.float32
    if how == "none":
        assert got is points
        return
    centred = points - points.mean(axis=0, dtype=np.float64)
    scale = np.linalg.norm(centred, axis=1).max() if how == "unit-sphere" else 0.05
    np.testing.assert_allclose(got, centred / scale, atol=1e-5)
    if how == "unit-sphere":
        assert radius(got) == pytest.approx(1, rel=1e-5)


def test_a_fixed_scale_keeps_sizes_comparable() -> None:
    points = np.random.default_rng(0).normal(0.5, 0.02, (500, 3)).astype(np.float32)
    assert radius(normalise(2 * points, "fixed", 0.05)) == pytest.approx(2 * radius(normalise(points, "fixed", 0.05)))


def few(count: int) -> np.ndarray:
    valid = np.zeros((SIZE, SIZE), bool)
    valid.ravel()[:count] = True
    return valid


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (0, {}, "only 0 valid points; expected at least 8"),
        (0, {"normalize": "unit-sphere"}, "only 0 valid points; expected at least 8"),
        (7, {}, "only 7 valid points; expected at least 8"),
        (10, {"stride": 2}, "only 5 valid points"),
        (1, {"group_size": 1, "normalize": "unit-sphere"}, "all valid points coincide"),
    ],
)
def test_too_few_points(count: int, changes: dict[str, object], message: str) -> None:
    preset: Points = replace(POINTS, **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidFrame, match=message):
        prepare_points(sample(few(count)), preset, 0.05)


def test_fewer_points_than_groups_are_enough() -> None:
    got = prepare_points(sample(few(9)), POINTS, 0.05)
    assert len(np.unique(got.centers, axis=0)) == 9
    assert np.isfinite(got.interp_weight).all()


def test_repeated_camera_pixels_count_once() -> None:
    s = sample(np.ones((SIZE, SIZE), bool))
    zoomed = replace(s, transform=SampleTransform(0, 0, 4, SIZE, 4, 4))
    with pytest.raises(InvalidFrame, match="only 16 valid points; expected at least 17"):
        prepare_points(zoomed, replace(POINTS, group_size=17), 0.05)
    assert prepare_points(zoomed, replace(POINTS, group_size=16), 0.05).groups.shape == (16, 16, 3)
