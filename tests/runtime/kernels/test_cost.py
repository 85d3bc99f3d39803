"""What the floors are made of: counted work, and costs that name kernels which exist."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_ad.presets import load_preset
from edge_ad.runtime import kernels
from edge_ad.runtime.kernels.cost import (
    Problem,
    Work,
    costs,
    grouping_work,
    interpolation_work,
    sampling_work,
)
from edge_ad.runtime.kernels.floor import DEVICES, Cost
from edge_ad.runtime.kernels.launch import Buckets, smoothing, tile_buckets
from edge_ad.runtime.kernels.score_cost import ScoreProblem, score_costs
from edge_ad.runtime.pointops import farthest_point_sample


def line(n: int) -> np.ndarray:
    return np.stack([np.arange(n), np.zeros(n), np.zeros(n)], axis=1).astype(np.float32)


def test_sampling_touches_what_it_cannot_rule_out() -> None:
    # 64 points on a line in two buckets. The first centre touches both; the second, point 63, its own half alone: from
    # point 32 on it is nearer. Point 31 lies 31 from point 0 and 32 from point 63.
    assert sampling_work(line(64), Buckets(2, 32), 2) == Work(2, 64)
    assert sampling_work(line(64), Buckets(2, 32), 3) == Work(4, 96)
    # One bucket can never be ruled out while anything in it moves.
    assert sampling_work(line(32), Buckets(1, 32), 5) == Work(4, 128)


def test_grouping_reads_the_buckets_within_the_limit() -> None:
    points = line(96)
    # The 4 nearest of point 10 lie in its own bucket; those of point 31 (30 to 33) in two.
    assert grouping_work(points, points[[10]], 4, Buckets(3, 32)).slots == 32
    assert grouping_work(points, points[[31]], 4, Buckets(3, 32)).slots == 64


def test_interpolation_compares_the_centres_that_a_box_cannot_rule_out() -> None:
    points, centers = line(32), np.float32([[0, 0, 0], [15, 0, 0], [31, 0, 0], [500, 0, 0]])
    work = interpolation_work(points, centers, Buckets(1, 32))
    assert work == Work(8, 3 * 32)


def test_floors() -> None:
    size = 64
    rank = np.arange(size * size, dtype=np.int32).reshape(size, size)
    y, x = np.mgrid[:size, :size]
    points = np.stack([x, y, np.full_like(x, 500)], axis=-1).reshape(-1, 3).astype(np.float32) * np.float32(1e-3)
    buckets = tile_buckets(size)
    centers = points[farthest_point_sample(points, 64)]
    work = (
        sampling_work(points, buckets, 64, rank, size),
        grouping_work(points, centers, 16, buckets, rank, size),
        interpolation_work(points, centers, buckets, rank, size),
    )
    assert all(0 < w.slots < 64 * len(points) / 2 for w in work)
    filters = smoothing(replace(load_preset("paper").fusion, smoothing="box-cascade"))
    found = costs(Problem(96, 128, 128, size, len(points), 64, 16), buckets, *work, filters)
    for device in DEVICES:
        assert all(c.floor_ms(device) > 0 for c in found)
    slow, fast = DEVICES[1], DEVICES[2]
    assert all(c.floor_ms(fast) < c.floor_ms(slow) for c in found)


def test_every_kernel_is_counted_and_nothing_else() -> None:
    """Over the kinds of frames and models that there are; the two tables of counts together."""
    buckets, work = tile_buckets(64), Work(10, 100)
    fusions = [
        replace(load_preset("paper").fusion, smoothing="box-cascade"),
        replace(load_preset("paper").fusion, smoothing="gaussian", sigma=8.0),
    ]
    problem = Problem(96, 128, 128, 64, 2000, 64, 16)
    kinds = [
        replace(problem, rim=2, spread=3, stride=3, pool=6),
        replace(problem, ring=500, registered=False),
        replace(problem, cloud=True),
    ]
    counted = {c.kernel for p in kinds for f in fusions for c in costs(p, buckets, work, work, work, smoothing(f))}
    for half in (False, True):
        sizes = ScoreProblem(2000, 4096, 64, 64, 60, 40, 8, 8, (8, 8), ((8, 8), (8, 8)), half, 100, 3, True)
        counted |= {c.kernel for c in score_costs(sizes)}
    assert counted == {entry for name in kernels.names() for entry in kernels.entries(name)}


def test_a_floor_is_the_slower_of_memory_and_lanes() -> None:
    orin = DEVICES[0]
    assert Cost("k", int(204.8e6), 1).floor_ms(orin) == pytest.approx(1.0)
    assert Cost("k", 1, int(16 * 128 * 1.3e6)).floor_ms(orin) == pytest.approx(1.0)
    assert Cost("k", 1, int(128 * 1.3e6), blocks=1).floor_ms(orin) == pytest.approx(1.0)
    assert Cost("k", int(64 * 1.3e6), 1, blocks=1).floor_ms(orin) == pytest.approx(1.0)
