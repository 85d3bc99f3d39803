"""Score stride: which pixels are scored and what the others get, against edge_ad.runtime.stride."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.kernels.launch import per_thread
from edge_ad.runtime.stride import StridePlan, lattice_axis
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import Compacted, count, module, start

pytestmark = needs_compiler


@settings(max_examples=examples(40))
@given(
    st.integers(1, 60),
    st.integers(2, 5),
    st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    st.integers(0, 99),
    st.tuples(st.sampled_from(SCHEDULES), st.integers(0, 9)),
)
def test_scored_pixels_and_the_others(
    size: int, stride: int, share: float, seed: int, schedule: tuple[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((size, size)) < share
    n, launch, m = int(valid.sum()), per_thread(size * size), module("stride", schedule)
    offset, many, low, part = lattice_axis(size, stride)
    lattice = low.astype(np.int32), part, size, offset, stride, many
    scored = np.full((size, size), 9, np.uint8)
    start(m.stride_mark, launch)(valid, *lattice, scored)
    plan = StridePlan(valid, stride)
    wanted = np.zeros(n, bool)
    wanted[plan.rows] = True
    np.testing.assert_array_equal(scored[valid] > 0, wanted)
    assert not scored[~valid].any()

    xyz = np.zeros((size, size, 3), np.float32)
    every, some = Compacted(valid, xyz, schedule=schedule), Compacted(scored > 0, xyz, schedule=schedule)
    near, weight = rng.integers(0, 50, (n, 3)).astype(np.int32), rng.random((n, 3), dtype=np.float32)
    rows = len(plan.rows)
    some_near, some_weight = np.full((rows, 3), -9, np.int32), np.full((rows, 3), np.nan, np.float32)
    gather = start(m.stride_gather, launch)
    gather(some.pixels, count(rows), every.rank, near, weight, some_near, some_weight)
    np.testing.assert_array_equal(some_near, near[plan.rows])
    np.testing.assert_array_equal(some_weight, weight[plan.rows])

    values, out = rng.random(rows, dtype=np.float32), np.full(n, np.nan, np.float32)
    start(m.stride_spread, launch)(values, some.rank, valid, every.pixels, count(n), *lattice, out)
    np.testing.assert_allclose(out, plan.spread(values), rtol=3e-7)
