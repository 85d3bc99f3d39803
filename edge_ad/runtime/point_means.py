"""Compiled means over points and token rows: what NumPy's take an array, or a slow axis, for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, I64
from edge_ad.runtime.jit import ROUNDED, compiled

f32 = np.float32


@compiled(**ROUNDED)
def inverse_weights(d2: F32, eps: np.float32) -> F32:
    """(N, 3) squared distances -> (N, 3) float32: ``1 / (d2 + eps)``, over their sum from left to right."""
    out = np.empty(d2.shape, np.float32)
    flat, given = out.reshape(-1), d2.reshape(-1)
    for i in range(len(flat)):
        flat[i] = f32(1) / (given[i] + eps)
    for i in range(len(d2)):
        a, b, c = out[i, 0], out[i, 1], out[i, 2]
        total = (a + b) + c
        out[i, 0], out[i, 1], out[i, 2] = a / total, b / total, c / total
    return out


@compiled(**ROUNDED)
def mean_point(points: F32) -> NDArray[np.float64]:
    """(N, 3) float32, N >= 1 -> (3,) float64 mean, summed in float64."""
    x = y = z = 0.0
    for i in range(len(points)):
        x, y, z = x + points[i, 0], y + points[i, 1], z + points[i, 2]
    return np.array([x, y, z]) / len(points)


@compiled(**ROUNDED)
def mean_of_rows(rows: F32, index: I64) -> F32:
    """(R, D) and (G, k) numbers of rows -> (G, D) float32, the mean of each k rows, summed in the order given."""
    groups, k = index.shape
    width = rows.shape[1]
    out = np.empty((groups, width), np.float32)
    for g in range(groups):
        here = out[g]
        here[:] = rows[index[g, 0]]
        for i in range(1, k):
            other = rows[index[g, i]]
            for j in range(width):
                here[j] += other[j]
        for j in range(width):
            here[j] /= f32(k)
    return out
