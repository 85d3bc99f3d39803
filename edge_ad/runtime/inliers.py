"""How many points lie near each of many planes: the inner loop of RANSAC, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.jit import ROUNDED, compiled

F64 = NDArray[np.float64]


def count_inliers(points: F64, normals: F64, offsets: F64, distance: float) -> NDArray[np.int64]:
    """``(abs(points @ normals.T + offsets) < distance).sum(axis=0)`` without its (N, M) arrays.

    points : (N, 3), finite. normals : (M, 3). offsets : (M,). Returns (M,) int64.
    """
    counts = np.empty(len(normals), np.int64)
    _count(np.ascontiguousarray(points.T), np.ascontiguousarray(normals), offsets, distance, counts)  # type: ignore[no-untyped-call]
    return counts


@compiled(**ROUNDED)
def _count(points, normals, offsets, distance, counts):  # type: ignore[no-untyped-def]
    for i in range(normals.shape[0]):
        a, b, c, d = normals[i, 0], normals[i, 1], normals[i, 2], offsets[i]
        near = 0
        for j in range(points.shape[1]):
            near += abs(points[0, j] * a + points[1, j] * b + points[2, j] * c + d) < distance
        counts[i] = near
