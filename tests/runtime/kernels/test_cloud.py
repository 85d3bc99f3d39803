"""Valid pixels to a dense list, and into the unit of the point encoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.frame import Sample, SampleTransform
from edge_ad.runtime.kernels.launch import Launch, compact_launch
from edge_ad.runtime.point_input import _measured, normalise, radius
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import Compacted, count, module, start

pytestmark = needs_compiler
schedules = st.tuples(st.sampled_from(SCHEDULES), st.integers(0, 9))


@settings(max_examples=examples(40))
@given(st.integers(1, 70), st.integers(1, 4), st.sampled_from([0.0, 0.01, 0.5, 1.0]), st.integers(0, 50), schedules)
def test_compaction_is_row_major(size: int, stride: int, share: float, seed: int, schedule: tuple[str, int]) -> None:
    rng = np.random.default_rng(seed)
    valid = rng.random((size, size)) < share
    xyz = rng.normal(size=(size, size, 3)).astype(np.float32)
    got = Compacted(valid, xyz, stride, schedule=schedule)
    lattice = np.zeros_like(valid)
    lattice[::stride, ::stride] = True
    taken = valid & lattice
    n = int(taken.sum())
    assert got.count[0] == n
    np.testing.assert_array_equal(got.points[:n], xyz[taken])
    np.testing.assert_array_equal(got.pixels[:n], np.flatnonzero(taken))
    rank = np.full(size * size, -1)
    rank[taken.ravel()] = np.arange(n)
    np.testing.assert_array_equal(got.rank.ravel(), rank)
    assert np.isnan(got.points[n:]).all()


@settings(max_examples=examples(40))
@given(st.integers(1, 80), st.integers(1, 40), st.integers(-20, 20), st.integers(1, 4), st.integers(0, 50), schedules)
def test_what_a_part_is_refused_by(
    side: int, size: int, y0: int, stride: int, seed: int, schedule: tuple[str, int]
) -> None:
    """Valid and lost pixels; a small part repeats camera pixels, which count once (point_input._measured)."""
    rng = np.random.default_rng(seed)
    t = SampleTransform(y0, 3, side, size, 200, 200)
    camera = rng.random((2, 200 + 100, 200 + 100)) < 0.4
    valid, lost = (np.ascontiguousarray(c[50 + t.source_rows()[:, None], 50 + t.source_cols()[None]]) for c in camera)
    xyz = np.zeros((size, size, 3), np.float32)
    counts = np.zeros(5, np.int32)
    start(module("compact", schedule).part_counts, compact_launch(size))(valid, lost, size, side, stride, counts)
    measured = _measured(Sample(np.zeros((3, 1, 1), np.float32), xyz, valid, lost, t))
    drawn = valid[::stride, ::stride].sum()
    assert counts.tolist() == [valid.sum(), lost.sum(), (valid | lost).sum(), measured, drawn]


HOW = {"none": 0, "unit-sphere": 1, "fixed": 2}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("n", [1, 33, 5000])
def test_normalisation(how: str, n: int) -> None:
    points = np.random.default_rng(n).normal(0.5, 0.1, (n, 3)).astype(np.float32)
    frame = np.full(4, np.nan, np.float32)
    m = module("compact", ("random", n))
    factor = float(np.float32(1.0 / 0.037))
    m.cloud_frame[1, 1024](points, count(n), HOW[how], factor, frame)
    moved = points.copy()
    start(m.cloud_apply, Launch((3, 1), 256))(moved, count(n), frame)
    if how == "unit-sphere" and radius(points) == 0:
        assert frame[3] == 0  # the pipeline refuses such a cloud by its factor
        return
    # Sums in float64 in another order than NumPy's: the mean's last float32 digit at most.
    np.testing.assert_allclose(moved, normalise(points, how, 0.037), rtol=0, atol=3e-6)
    if how == "none":
        np.testing.assert_array_equal(moved, points)
    if how == "unit-sphere":
        assert np.linalg.norm(moved, axis=1).max() == pytest.approx(1, abs=1e-5)


def test_a_cloud_of_one_place_has_no_scale() -> None:
    points = np.full((777, 3), 0.3, np.float32)
    frame = np.full(4, np.nan, np.float32)
    module("compact").cloud_frame[1, 1024](points, count(777), HOW["unit-sphere"], 1.0, frame)
    assert frame.tolist() == [np.float32(0.3)] * 3 + [0]


def test_the_mean_of_a_far_cloud_keeps_float64s_digits() -> None:
    """50,176 points a thousand radii away: a float32 sum would lose the part."""
    points = np.random.default_rng(2).normal(10, 0.01, (50_176, 3)).astype(np.float32)
    frame = np.full(4, np.nan, np.float32)
    module("compact").cloud_frame[1, 1024](points, count(len(points)), HOW["unit-sphere"], 1.0, frame)
    np.testing.assert_array_equal(frame[:3], points.mean(axis=0, dtype=np.float64).astype(np.float32))
    assert frame[3] == np.float32(1.0 / radius(points))
