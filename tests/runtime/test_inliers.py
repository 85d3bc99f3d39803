"""The compiled loops of the plane's fit against their definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.inliers import count_inliers, inlier_moments


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 40), st.floats(1e-4, 2), st.integers(0, 2**31))
def test_counts_are_those_of_the_definition(n: int, m: int, distance: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, normals, offsets = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)), rng.normal(size=m)
    expected = (np.abs(points @ normals.T + offsets) < distance).sum(axis=0)
    np.testing.assert_array_equal(count_inliers(points, normals, offsets, distance), expected)


@settings(max_examples=30)
@given(st.integers(1, 300), st.floats(1e-3, 2), st.floats(0, 100), st.integers(0, 2**31))
def test_moments_are_those_of_the_definition(n: int, distance: float, away: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 3)) + away
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    offset = float(-normal @ points.mean(axis=0)) + 0.1 * rng.normal()
    near = points[np.abs(points @ normal + offset) < distance]
    count, mean, scatter = inlier_moments(np.ascontiguousarray(points.T), normal, offset, distance)
    assert count == len(near)
    if len(near):
        np.testing.assert_allclose(mean, near.mean(axis=0), atol=1e-12 + 1e-12 * away)
        centred = near - near.mean(axis=0)
        np.testing.assert_allclose(scatter, centred.T @ centred, atol=1e-9)
    else:
        assert not mean.any() and not scatter.any()
