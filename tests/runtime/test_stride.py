"""Score stride: which pixels are scored and what the others get."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.stride import StridePlan


def mask(seed: int, size: int, share: float) -> np.ndarray:
    return np.random.default_rng(seed).random((size, size)) < share


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(5, 40), st.integers(1, 7), st.floats(0.02, 1.0))
def test_every_valid_pixel_gets_a_mean_of_scored_ones(seed: int, size: int, stride: int, share: float) -> None:
    valid = mask(seed, size, share)
    plan = StridePlan(valid, stride)
    values = np.random.default_rng(seed).random(len(plan.rows)).astype(np.float32)
    out = plan.spread(values)
    assert out.shape == (int(valid.sum()),) and out.dtype == np.float32
    np.testing.assert_array_equal(out[plan.rows], values)
    if len(values):
        assert out.min() >= values.min() - 1e-5 and out.max() <= values.max() + 1e-5
    # A constant stays: the weights sum to 1.
    np.testing.assert_allclose(plan.spread(np.full(len(plan.rows), 0.7, np.float32)), 0.7, rtol=1e-5)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(4, 40), st.floats(0, 1))
def test_stride_1_scores_every_pixel(seed: int, size: int, share: float) -> None:
    valid = mask(seed, size, share)
    plan = StridePlan(valid, 1)
    np.testing.assert_array_equal(plan.rows, np.arange(valid.sum()))
    values = np.random.default_rng(seed).random(len(plan.rows)).astype(np.float32)
    np.testing.assert_array_equal(plan.spread(values), values)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_plane_is_kept_inside_and_few_pixels_are_scored(stride: int) -> None:
    size = 48
    y, x = np.mgrid[:size, :size].astype(np.float32)
    plane = 0.1 + 0.02 * x - 0.01 * y + 1.0
    valid = np.ones((size, size), bool)
    plan = StridePlan(valid, stride)
    assert len(plan.rows) == len(range((stride - 1) // 2, size, stride)) ** 2
    out = plan.spread(plane[valid][plan.rows]).reshape(size, size)
    inside = np.s_[stride:-stride, stride:-stride]
    np.testing.assert_allclose(out[inside], plane[inside], atol=1e-4)


def test_slivers_thinner_than_the_stride_are_scored_themselves() -> None:
    valid = np.zeros((32, 32), bool)
    valid[:, 7] = True  # between the lattice columns 5 and 9 of stride 4, which are invalid
    plan = StridePlan(valid, 4)
    np.testing.assert_array_equal(plan.rows, np.arange(32))
