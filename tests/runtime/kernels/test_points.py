"""Sampling, grouping and interpolation kernels: the indices of NumPy, ties included, under every order of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ad.errors import EdgeAdError
from edge_ad.runtime import pointops
from edge_ad.runtime.kernels import reference
from edge_ad.runtime.kernels.launch import Buckets, consecutive_buckets, knn_launch, tile_buckets
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import Compacted, Ordered
from tests.shared import SHARED, needs_shared

pytestmark = needs_compiler

schedules = st.tuples(st.sampled_from(SCHEDULES), st.integers(0, 1000))
# Buckets of any size: the result must not depend on how the points lie in them.
rooms = st.sampled_from([32, 64, 96, 256])


def clouds(low: int, high: int) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(low, high), st.just(3))
    lattice = hnp.arrays(np.float32, shape, elements=st.integers(-2, 2).map(float))
    metres = hnp.arrays(np.float32, shape, elements=st.floats(-2, 2, width=32, allow_subnormal=False))
    line = hnp.arrays(np.float32, shape, elements=st.integers(-5, 5).map(float)).map(
        lambda p: p * np.float32([1, 0, 0])
    )
    equal = st.tuples(st.integers(low, high), st.floats(-1, 1, width=32)).map(
        lambda t: np.full((t[0], 3), t[1], np.float32)
    )
    noise = st.tuples(st.integers(low, high), st.integers(0, 99)).map(
        lambda t: np.random.default_rng(t[1]).normal(size=(t[0], 3)).astype(np.float32)
    )
    return st.one_of(lattice, metres, line, equal, noise)


def ordered(points: np.ndarray, room: int, schedule: tuple[str, int]) -> Ordered:
    return Ordered(points, Buckets(-(-len(points) // room), room), schedule=schedule)


@settings(max_examples=examples(60))
@given(clouds(1, 300), st.integers(1, 60), rooms, schedules)
def test_farthest_points_are_numpys(points: np.ndarray, n: int, room: int, schedule: tuple[str, int]) -> None:
    chosen, centers = ordered(points, room, schedule).fps(n)
    np.testing.assert_array_equal(chosen, pointops.farthest_point_sample(points, n))
    np.testing.assert_array_equal(centers, points[chosen])


@settings(max_examples=examples(60))
@given(clouds(1, 400), st.data(), rooms, schedules)
def test_nearest_points_are_numpys(
    points: np.ndarray, data: st.DataObject, room: int, schedule: tuple[str, int]
) -> None:
    k = data.draw(st.integers(1, min(128, len(points))), label="k")
    centers = points[data.draw(st.lists(st.integers(0, len(points) - 1), min_size=1, max_size=20), label="centres")]
    index, grouped = ordered(points, room, schedule).knn(centers, k)
    expected = pointops.k_nearest(points, centers, k)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(grouped, pointops.group_points(points, centers, expected))


@settings(max_examples=examples(60))
@given(clouds(1, 400), st.data(), rooms, schedules)
def test_three_nearest_by_buckets_are_numpys(
    points: np.ndarray, data: st.DataObject, room: int, schedule: tuple[str, int]
) -> None:
    if data.draw(st.booleans(), label="centres among the points") and len(points) > 2:
        centers = points[pointops.farthest_point_sample(points, data.draw(st.integers(3, 40), label="groups"))]
    else:
        centers = data.draw(clouds(3, 50), label="centres")
    index, weight = ordered(points, room, schedule).three_nearest(centers)
    expected, expected_weight = pointops.three_nearest(points, centers)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(weight, expected_weight)


@needs_shared
@pytest.mark.parametrize("name", ["geometry", "geometry_ties"])
def test_golden_clouds(name: str) -> None:
    golden = np.load(SHARED / f"golden/{name}.npz")
    points = golden["points"] if name == "geometry_ties" else golden["xyz"][golden["valid"]]
    buckets = Ordered(points)
    chosen, centers = buckets.fps(len(golden["fps_index"]))
    np.testing.assert_array_equal(chosen, golden["fps_index"])
    np.testing.assert_array_equal(buckets.knn(centers, 32)[0], golden["knn_index"])
    index, weight = Ordered(points).three_nearest(centers)
    np.testing.assert_array_equal(index, golden["interp_index"])
    np.testing.assert_allclose(weight, golden["interp_weight"], rtol=0, atol=2e-7)


def part(size: int, seed: int, share: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """A wavy surface on the sample grid with holes: valid (size, size) and xyz (size, size, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    z = 0.5 + 0.02 * np.sin(x / 17) * np.cos(y / 13) + rng.normal(0, 3e-4, x.shape)
    xyz = np.stack([(x - size / 2) * 1e-3, (y - size / 2) * 1e-3, z], axis=-1).astype(np.float32)
    valid = ((x - size / 2) ** 2 + (y - size / 2) ** 2 < share * size * size / 2) & (rng.random(x.shape) > 0.03)
    return valid, np.where(valid[..., None], xyz, np.float32(0))


@pytest.mark.parametrize(("size", "stride"), [(61, 1), (64, 2), (50, 3), (100, 1)])
@pytest.mark.parametrize("schedule", [("forward", 0), ("reverse", 0), ("random", 5)])
def test_tiles_of_the_sample_grid_give_the_same_indices(size: int, stride: int, schedule: tuple[str, int]) -> None:
    valid, xyz = part(size, size)
    compacted = Compacted(valid, xyz, stride, schedule=schedule)
    lattice = np.zeros_like(valid)
    lattice[::stride, ::stride] = True
    points = xyz[valid & lattice]
    assert compacted.count[0] == len(points)
    buckets = tile_buckets(size, stride)
    tiles = Ordered(points, buckets, compacted.rank, size, stride, schedule)
    index, boxes = reference.order_points(points, compacted.rank, buckets, size, stride)
    np.testing.assert_array_equal(tiles.slots[:, 3].view(np.int32).reshape(index.shape), index)
    filled = index.ravel() >= 0
    np.testing.assert_array_equal(tiles.slots[filled, :3], points[index.ravel()[filled]])
    np.testing.assert_array_equal(tiles.nearest, np.where(filled, np.float32(np.inf), np.float32(-1)))
    np.testing.assert_array_equal(tiles.boxes[:, [0, 1, 2, 4, 5, 6]], boxes)
    np.testing.assert_array_equal(tiles.boxes[:, 3].view(np.int32), (index >= 0).sum(axis=1))
    chosen, centers = tiles.fps(64)
    np.testing.assert_array_equal(chosen, pointops.farthest_point_sample(points, 64))
    np.testing.assert_array_equal(tiles.knn(centers, 32)[0], pointops.k_nearest(points, centers, 32))


def test_a_whole_sample_grid_of_50176_points() -> None:
    """The largest cloud of the paper's preset, with fewer centres than its 1024 for the emulator's sake."""
    valid, xyz = part(224, 1, share=9.0)
    valid[:] = True
    xyz = part(224, 1, share=99.0)[1]
    points = xyz.reshape(-1, 3)
    rank = np.arange(224 * 224, dtype=np.int32).reshape(224, 224)
    tiles = Ordered(points, tile_buckets(224), rank, 224)
    chosen, centers = tiles.fps(200)
    np.testing.assert_array_equal(chosen, pointops.farthest_point_sample(points, 200))
    np.testing.assert_array_equal(tiles.knn(centers[:64], 32)[0], pointops.k_nearest(points, centers[:64], 32))
    index, weight = tiles.three_nearest(centers)
    expected, expected_weight = pointops.three_nearest(points, centers)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(weight, expected_weight)


@pytest.mark.slow
@pytest.mark.parametrize("n", [50_176, 60_000])
def test_large_clouds_in_no_order(n: int) -> None:
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    buckets = Ordered(points)
    chosen, centers = buckets.fps(1024)
    np.testing.assert_array_equal(chosen, pointops.farthest_point_sample(points, 1024))
    expected = pointops.k_nearest(points, centers, 32)
    np.testing.assert_array_equal(buckets.knn(centers, 32)[0], expected)
    index, _ = buckets.three_nearest(centers)
    np.testing.assert_array_equal(index, pointops.three_nearest(points, centers)[0])


def test_no_point_and_fewer_points_than_a_group_stay_inside_their_memory() -> None:
    """The pipeline refuses such clouds by their number; the kernels have run by then and must have done no harm."""
    empty = Ordered(np.zeros((0, 3), np.float32))
    chosen, centers = empty.fps(5)
    assert not chosen.any() and not centers.any()
    few = np.float32([[0, 0, 1], [1, 0, 1]])
    index, grouped = Ordered(few).knn(few[:1], 6)
    assert index.tolist() == [[0, 1, 0, 0, 0, 0]]
    assert np.isfinite(grouped).all()
    index, _ = empty.three_nearest(few)
    assert index.shape == (0, 3)


def test_distances_that_overflow_are_still_ordered_by_index() -> None:
    points = np.float32([[0, 0, 0], [3e38, 0, 0], [-3e38, 0, 0], [1, 0, 0]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(Ordered(points).fps(4)[0], pointops.farthest_point_sample(points, 4))
    assert Ordered(points[:1]).three_nearest(points)[0].tolist() == [[0, 3, 1]]


def test_bucket_sizes() -> None:
    assert tile_buckets(224) == Buckets(784, 64, 28, 8)
    assert tile_buckets(224, 2) == Buckets(196, 64, 14, 8)
    assert tile_buckets(448).count <= 1024 and tile_buckets(448).tile == 16
    assert consecutive_buckets(50_176) == Buckets(784, 64)
    assert consecutive_buckets(1) == Buckets(1, 32)
    assert consecutive_buckets(60_000).slots >= 60_000


def test_a_group_larger_than_a_warp_holds_is_refused() -> None:
    with pytest.raises(EdgeAdError, match="groups of 129 points on the device; expected 1 to 128"):
        knn_launch(10, 129)
