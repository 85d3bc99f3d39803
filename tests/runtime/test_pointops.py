"""Point operations against the golden files and against brute force by the rule of METHOD section 2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ad.errors import InvalidFrame
from edge_ad.runtime.pointops import (
    farthest_point_sample,
    group_points,
    k_nearest,
    squared_distance,
    three_nearest,
)
from tests.shared import SHARED, needs_shared


def brute_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(G, N) float32: every operation rounded on its own."""
    d = points[None].astype(np.float32) - centers[:, None].astype(np.float32)
    dx, dy, dz = d[..., 0], d[..., 1], d[..., 2]
    return (dx * dx + dy * dy) + dz * dz


def brute_nearest(points: np.ndarray, centers: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(brute_distances(points, centers), axis=1, kind="stable")[:, :k]


def brute_fps(points: np.ndarray, n: int) -> np.ndarray:
    nearest = np.full(len(points), np.inf, np.float32)
    chosen = [0]
    for _ in range(n - 1):
        nearest = np.minimum(nearest, brute_distances(points, points[chosen[-1]][None])[0])
        chosen.append(int(np.flatnonzero(nearest == nearest.max())[0]))
    return np.array(chosen)


# Small integers make ties; the rest are metres as a camera gives them.
def clouds(low: int, high: int = 60) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(low, high), st.just(3))
    lattice = hnp.arrays(np.float32, shape, elements=st.integers(-2, 2).map(float))
    metres = hnp.arrays(np.float32, shape, elements=st.floats(-2, 2, width=32, allow_subnormal=False))
    line = hnp.arrays(np.float32, shape, elements=st.integers(-5, 5).map(float)).map(
        lambda p: p * np.float32([1, 0, 0])
    )
    equal = st.tuples(st.integers(low, high), st.floats(-1, 1, width=32)).map(
        lambda t: np.full((t[0], 3), t[1], np.float32)
    )
    return st.one_of(lattice, metres, line, equal)


@needs_shared
def test_golden_cloud() -> None:
    golden = np.load(SHARED / "golden/geometry.npz")
    points = golden["xyz"][golden["valid"]]
    chosen = farthest_point_sample(points, len(golden["fps_index"]))
    np.testing.assert_array_equal(chosen, golden["fps_index"])
    assert chosen.dtype == np.int64
    centers = points[chosen]
    neighbours = k_nearest(points, centers, 32)
    np.testing.assert_array_equal(neighbours, golden["knn_index"])
    index, weight = three_nearest(points, centers)
    np.testing.assert_array_equal(index, golden["interp_index"])
    np.testing.assert_allclose(weight, golden["interp_weight"], rtol=0, atol=2e-7)
    assert (neighbours.dtype, index.dtype, weight.dtype) == (np.int64, np.int64, np.float32)
    interpolated = (golden["features"][index] * weight[..., None]).sum(axis=1)
    np.testing.assert_allclose(interpolated, golden["interpolated"], atol=2e-6)


@needs_shared
def test_golden_lattice_that_is_full_of_ties() -> None:
    golden = np.load(SHARED / "golden/geometry_ties.npz")
    points = golden["points"]
    chosen = farthest_point_sample(points, len(golden["fps_index"]))
    np.testing.assert_array_equal(chosen, golden["fps_index"])
    np.testing.assert_array_equal(k_nearest(points, points[chosen], 32), golden["knn_index"])
    index, weight = three_nearest(points, points[chosen])
    np.testing.assert_array_equal(index, golden["interp_index"])
    np.testing.assert_allclose(weight, golden["interp_weight"], rtol=0, atol=2e-7)


@settings(max_examples=60)
@given(clouds(1), st.integers(1, 40))
def test_farthest_point_sampling_is_brute_force(points: np.ndarray, n: int) -> None:
    chosen = farthest_point_sample(points, n)
    np.testing.assert_array_equal(chosen, brute_fps(points, n))


@settings(max_examples=80)
@given(clouds(1), st.data())
def test_k_nearest_is_brute_force(points: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.one_of(st.just(len(points)), st.integers(1, len(points))), label="k")
    centers = points[farthest_point_sample(points, data.draw(st.integers(1, 12), label="groups"))]
    np.testing.assert_array_equal(k_nearest(points, centers, k), brute_nearest(points, centers, k))


@settings(max_examples=60)
@given(clouds(1), clouds(3, 30))
def test_three_nearest_is_brute_force_and_weights_sum_to_one(points: np.ndarray, centers: np.ndarray) -> None:
    index, weight = three_nearest(points, centers)
    np.testing.assert_array_equal(index, brute_nearest(centers, points, 3))
    d2 = np.take_along_axis(brute_distances(centers, points), index, axis=1).astype(np.float64)
    expected = 1 / (d2 + 1e-8)
    np.testing.assert_allclose(weight, expected / expected.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(weight.sum(axis=1), 1, atol=1e-6)


def test_a_large_lattice_ties_in_most_groups_and_is_still_exact() -> None:
    axis = np.arange(40, dtype=np.float32) * np.float32(0.001)
    points = np.stack([*np.meshgrid(axis, axis), np.full((40, 40), 0.5, np.float32)], axis=-1).reshape(-1, 3)
    centers = points[::37]
    np.testing.assert_array_equal(k_nearest(points, centers, 32), brute_nearest(points, centers, 32))


def test_fewer_points_than_groups_repeat() -> None:
    points = np.float32([[0, 0, 1], [1, 0, 1], [0, 2, 1]])
    chosen = farthest_point_sample(points, 8)
    assert chosen[:3].tolist() == [0, 2, 1]
    assert set(chosen[3:].tolist()) <= {0, 1, 2}
    index, weight = three_nearest(points, points[chosen])
    assert index.shape == (3, 3) and np.isfinite(weight).all()


def test_the_distance_rule_is_float32_without_fused_operations() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20000, 3)).astype(np.float32)
    centre = np.float32([0.1234567, -0.7654321, 0.3333333])
    d = points - centre
    fused = (d.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    ours = squared_distance(points, centre)
    np.testing.assert_array_equal(ours, brute_distances(points, centre[None])[0])
    assert (ours != fused).any()  # else this cloud would not tell the rules apart


def test_groups_are_centred_on_their_centre() -> None:
    points = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    centers = points[:4]
    groups = group_points(points, centers, k_nearest(points, centers, 5))
    assert groups.shape == (4, 5, 3) and groups.dtype == np.float32
    np.testing.assert_array_equal(groups[:, 0], np.zeros((4, 3), np.float32))


NAN = np.float32([[0, 0, 1], [np.nan, 0, 1], [1, 1, 1], [2, 2, 2]])
FINE = np.float32([[0, 0, 1], [1, 0, 1], [1, 1, 1], [2, 2, 2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: farthest_point_sample(NAN, 2), "points with NaN or infinite coordinates"),
        (lambda: k_nearest(NAN, FINE, 2), "points with NaN"),
        (lambda: k_nearest(FINE, NAN, 2), "centers with NaN"),
        (lambda: three_nearest(np.where(np.isnan(NAN), np.inf, NAN), FINE), "infinite"),
        (lambda: farthest_point_sample(np.empty((0, 3), np.float32), 2), "no points"),
        (lambda: farthest_point_sample(np.zeros((4, 2), np.float32), 2), r"shape \(4, 2\)"),
        (lambda: k_nearest(FINE, FINE, 5), "only 4 valid points; expected at least 5"),
        (lambda: three_nearest(FINE, FINE[:2]), "only 2 group centres"),
    ],
)
def test_what_cannot_be_sampled_is_an_invalid_frame(call: object, message: str) -> None:
    with pytest.raises(InvalidFrame, match=message):
        call()  # type: ignore[operator]
