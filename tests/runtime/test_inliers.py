"""The compiled count of RANSAC against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.inliers import count_inliers


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 40), st.floats(1e-4, 2), st.integers(0, 2**31))
def test_counts_are_those_of_the_definition(n: int, m: int, distance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, normals, offsets = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), rng.normal(size=m)
    expected = (np.abs(points @ normals.T + offsets) < distance).sum(axis=0)
    np.testing.assert_array_equal(count_inliers(points, normals, offsets, distance), expected)
