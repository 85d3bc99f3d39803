"""Compiled means: bit for bit what NumPy computes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.point_means import inverse_weights, mean_of_rows, mean_point


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(1, 7), st.integers(1, 70), st.integers(0, 2**31))
def test_means_are_those_of_numpy(n: int, k: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, width)).astype(np.float32)
    index = rng.integers(0, n, (9, k))
    expected = rows[index].sum(axis=1) / np.float32(k)
    np.testing.assert_array_equal(mean_of_rows(rows, index), expected)
    points = rng.normal(5, 1, size=(n, 3)).astype(np.float32)
    np.testing.assert_allclose(mean_point(points), points.mean(axis=0, dtype=np.float64), rtol=1e-14)
    assert mean_point(points).dtype == np.float64


@settings(max_examples=30)
@given(st.integers(1, 200), st.integers(0, 2**31))
def test_weights_are_those_of_numpy_and_sum_to_one(n: int, seed: int) -> None:
    d2 = (np.random.default_rng(seed).random((n, 3)) ** 8).astype(np.float32)
    d2[0, 0] = 0
    expected = np.float32(1) / (d2 + np.float32(1e-8))
    expected /= expected.sum(axis=1, keepdims=True)
    got = inverse_weights(d2, np.float32(1e-8))
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
