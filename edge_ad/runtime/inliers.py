"""Points near a plane: the inner loops of RANSAC and of the fit to its inliers, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.jit import FUSED, ROUNDED, compiled

F64 = NDArray[np.float64]


def count_inliers(points: F64, normals: F64, offsets: F64, distance: float) -> NDArray[np.int64]:
    """``(abs(points @ normals.T + offsets) < distance).sum(axis=0)`` without its (N, M) arrays.

    points : (N, 3), finite. normals : (M, 3). offsets : (M,). Returns (M,) int64.
    """
    counts = np.empty(len(normals), np.int64)
    _count(np.ascontiguousarray(points.T), np.ascontiguousarray(normals), offsets, distance, counts)  # type: ignore[no-untyped-call]
    return counts


def inlier_moments(points: F64, normal: F64, offset: float, distance: float) -> tuple[int, F64, F64]:
    """How many points lie nearer than ``distance`` to a plane, their mean and their scatter about it.

    points : (3, N), finite, N >= 1. normal : (3,), unit length. Returns the count, the mean (3,) and
    ``sum (p - mean) (p - mean)^T`` (3, 3); zeros without a point.
    """
    mean, scatter = np.zeros(3), np.zeros((3, 3))
    count = _moments(points[0], points[1], points[2], normal[0], normal[1], normal[2], offset, distance, mean, scatter)
    return int(count), mean, scatter


@compiled(**ROUNDED)
def _count(points, normals, offsets, distance, counts):  # type: ignore[no-untyped-def]
    for i in range(normals.shape[0]):
        a, b, c, d = normals[i, 0], normals[i, 1], normals[i, 2], offsets[i]
        near = 0
        for j in range(points.shape[1]):
            near += abs(points[0, j] * a + points[1, j] * b + points[2, j] * c + d) < distance
        counts[i] = near


@compiled(**FUSED)
def _moments(
    x: F64, y: F64, z: F64, a: float, b: float, c: float, offset: float, distance: float, mean: F64, scatter: F64
) -> float:
    # About the first point and not the origin: a plane far from the camera loses no digits.
    ox, oy, oz = x[0], y[0], z[0]
    start = ox * a + oy * b + oz * c + offset
    n = sx = sy = sz = xx = xy = xz = yy = yz = zz = 0.0
    for j in range(len(x)):
        p, q, r = x[j] - ox, y[j] - oy, z[j] - oz
        w = 1.0 if abs(p * a + q * b + r * c + start) < distance else 0.0
        u, v, t = w * p, w * q, w * r
        n, sx, sy, sz = n + w, sx + u, sy + v, sz + t
        xx, xy, xz = xx + u * p, xy + u * q, xz + u * r
        yy, yz, zz = yy + v * q, yz + v * r, zz + t * r
    if n == 0:
        return n
    mx, my, mz = sx / n, sy / n, sz / n
    mean[0], mean[1], mean[2] = ox + mx, oy + my, oz + mz
    scatter[0, 0], scatter[1, 1], scatter[2, 2] = xx - mx * sx, yy - my * sy, zz - mz * sz
    scatter[0, 1] = scatter[1, 0] = xy - mx * sy
    scatter[0, 2] = scatter[2, 0] = xz - mx * sz
    scatter[1, 2] = scatter[2, 1] = yz - my * sz
    return n
