"""Point operations on the CPU: farthest point sampling, exact nearest neighbours, interpolation weights.

The rule for every distance here (METHOD.md section 2) is ``d2 = (dx*dx + dy*dy) + dz*dz`` in float32, each operation
rounded on its own, ties to the lowest index. The tree searches in float64; its candidates are ranked anew by that rule,
and a query whose candidates cannot be proved complete is widened until they can.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, I64

# Bound on |d2_float32 - d2| / d2: three roundings a coordinate and two sums, each 2**-24, with room to spare.
_RELATIVE_ERROR = 1e-6
_UNDERFLOW = 1e-37


def squared_distance(points: F32, centre: F32) -> F32:
    """(..., 3) and (..., 3) float32 -> (...) float32 by the rule of this module."""
    d = points - centre
    d *= d
    return np.asarray((d[..., 0] + d[..., 1]) + d[..., 2], dtype=np.float32)


def farthest_point_sample(points: NDArray[np.float32], n: int) -> I64:
    """Indices of ``n`` points, each the farthest from those already chosen; the first is point 0.

    Parameters
    ----------
    points : (N, 3) float32, finite.
    n : number of indices wanted. With fewer than ``n`` distinct points indices repeat.

    Returns
    -------
    (n,) int64.

    Raises
    ------
    InvalidFrame
        No point at all, or coordinates that are not finite.
    """
    points = _checked(points, "points")
    x, y, z = (np.ascontiguousarray(points[:, i]) for i in range(3))
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    d2, term = np.empty_like(nearest), np.empty_like(nearest)
    chosen = np.empty(n, dtype=np.int64)
    last = 0
    for i in range(n):
        chosen[i] = last
        np.subtract(x, x[last], out=d2)
        np.multiply(d2, d2, out=d2)
        np.subtract(y, y[last], out=term)
        np.multiply(term, term, out=term)
        np.add(d2, term, out=d2)
        np.subtract(z, z[last], out=term)
        np.multiply(term, term, out=term)
        np.add(d2, term, out=d2)
        np.minimum(nearest, d2, out=nearest)
        last = int(nearest.argmax())
    return chosen


def k_nearest(points: NDArray[np.float32], centers: NDArray[np.float32], k: int) -> I64:
    """Exact k nearest points of every centre, nearest first, ties to the lowest index.

    Parameters
    ----------
    points : (N, 3) float32. centers : (G, 3) float32. k : 1 <= k <= N.

    Returns
    -------
    (G, k) int64 indices into ``points``.

    Raises
    ------
    InvalidFrame
        Fewer than ``k`` points, or coordinates that are not finite.
    """
    points, centers = _checked(points, "points"), _checked(centers, "centers")
    if len(points) < k:
        raise InvalidFrame(f"only {len(points)} valid points", f"at least {k}, the size of one group")
    return _nearest(points, centers, k)[0]


def three_nearest(
    points: NDArray[np.float32], centers: NDArray[np.float32], eps: float = 1e-8
) -> tuple[I64, NDArray[np.float32]]:
    """The three nearest centres of every point and their interpolation weights (METHOD.md section 2).

    Parameters
    ----------
    points : (N, 3) float32. centers : (G, 3) float32, G >= 3.
    eps : weights are ``1 / (d2 + eps)``, normalised to sum 1. ``eps`` is in squared units of the coordinates.

    Returns
    -------
    (N, 3) int64 and (N, 3) float32.
    """
    points, centers = _checked(points, "points"), _checked(centers, "centers")
    if len(centers) < 3:
        raise InvalidFrame(f"only {len(centers)} group centres", "at least 3 to interpolate between")
    index, d2 = _nearest(centers, points, 3)
    weight = np.float32(1) / (d2 + np.float32(eps))
    weight /= weight.sum(axis=1, keepdims=True)
    return index, weight


def group_points(points: NDArray[np.float32], centers: NDArray[np.float32], index: I64) -> F32:
    """Gather groups and centre each on its own centre: (N,3), (G,3), (G,K) -> (G,K,3) float32."""
    return np.asarray(points[index] - centers[:, None, :], dtype=np.float32)


def _checked(points: NDArray[np.float32], name: str) -> F32:
    points = np.ascontiguousarray(points, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InvalidFrame(f"{name} of shape {points.shape}", "(N, 3)")
    if len(points) == 0:
        raise InvalidFrame(f"no {name}: the frame has no valid depth in the part")
    if not np.isfinite(points).all():
        raise InvalidFrame(f"{name} with NaN or infinite coordinates", "finite metres")
    return points


def _nearest(points: F32, queries: F32, k: int) -> tuple[I64, F32]:
    """(Q, k) indices into ``points`` and float32 squared distances by the module's rule."""
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    index = np.empty((len(queries), k), dtype=np.int64)
    d2 = np.empty((len(queries), k), dtype=np.float32)
    rows = np.arange(len(queries))
    extra = 2 if k <= 3 else 8
    while len(rows):
        m = min(k + extra, len(points))
        # Blocks keep the candidates of wide re-queries (flat lattices) within a few megabytes.
        block = max(1, min(len(rows), 4_000_000 // m))
        open_rows = []
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            far, candidates = tree.query(queries[part], k=m)
            far, candidates = far.reshape(len(part), m), candidates.reshape(len(part), m)
            candidates = np.sort(candidates, axis=1)
            distance = squared_distance(points[candidates], queries[part][:, None, :])
            order = np.argsort(distance, axis=1, kind="stable")[:, :k]
            index[part] = np.take_along_axis(candidates, order, axis=1)
            d2[part] = np.take_along_axis(distance, order, axis=1)
            if m < len(points):
                # Points that were not queried lie at least as far as the last candidate.
                outside = far[:, -1] ** 2 * (1 - _RELATIVE_ERROR) - _UNDERFLOW
                open_rows.append(part[d2[part][:, -1] >= outside])
        rows = np.concatenate(open_rows) if open_rows else rows[:0]
        extra *= 4
    return index, d2
