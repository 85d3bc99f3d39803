"""Point operations on the CPU: farthest point sampling, exact nearest neighbours, interpolation weights.

The rule for every distance here (METHOD.md section 2) is ``d2 = (dx*dx + dy*dy) + dz*dz`` in float32, each operation
rounded on its own, ties to the lowest index. The kernels (:mod:`edge_ad.runtime.point_kernels`) follow it and leave out
only what provably cannot change the result.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, I64
from edge_ad.runtime import point_kernels as kernels
from edge_ad.runtime.point_kernels import Blocks, arrange
from edge_ad.runtime.point_means import inverse_weights

__all__ = [
    "Blocks",
    "arrange",
    "farthest_point_sample",
    "group_points",
    "k_nearest",
    "squared_distance",
    "three_nearest",
]


def squared_distance(points: F32, centre: F32) -> F32:
    """(..., 3) and (..., 3) float32 -> (...) float32 by the rule of this module."""
    d = points - centre
    d *= d
    return np.asarray((d[..., 0] + d[..., 1]) + d[..., 2], dtype=np.float32)


def farthest_point_sample(points: NDArray[np.float32], n: int, blocks: Blocks | None = None) -> I64:
    """Indices of ``n`` points, each the farthest from those already chosen; the first is point 0.

    Parameters
    ----------
    points : (N, 3) float32, finite.
    n : number of indices wanted. With fewer than ``n`` distinct points indices repeat.
    blocks : ``arrange(points)``, where the caller has it already.

    Returns
    -------
    (n,) int64.

    Raises
    ------
    InvalidFrame
        No point at all, or coordinates that are not finite.
    """
    points = _checked(points, "points")
    blocks = blocks or arrange(points)
    chosen = np.empty(n, dtype=np.int64)
    first = int(np.flatnonzero(blocks.order == 0)[0])
    kernels.farthest(blocks.order, blocks.xyz, blocks.low, blocks.high, first, chosen)
    return chosen


def k_nearest(points: NDArray[np.float32], centers: NDArray[np.float32], k: int, blocks: Blocks | None = None) -> I64:
    """Exact k nearest points of every centre, nearest first, ties to the lowest index.

    Parameters
    ----------
    points : (N, 3) float32. centers : (G, 3) float32. k : 1 <= k <= N.
    blocks : ``arrange(points)``, where the caller has it already.

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
    blocks = blocks or arrange(points)
    index = np.empty((len(centers), k), dtype=np.int64)
    kernels.nearest(blocks.order, blocks.xyz, blocks.low, blocks.high, centers, index)
    return index


def three_nearest(
    points: NDArray[np.float32], centers: NDArray[np.float32], eps: float = 1e-8, blocks: Blocks | None = None
) -> tuple[I64, NDArray[np.float32]]:
    """The three nearest centres of every point and their interpolation weights (METHOD.md section 2).

    Parameters
    ----------
    points : (N, 3) float32. centers : (G, 3) float32, G >= 3.
    eps : weights are ``1 / (d2 + eps)``, normalised to sum 1. ``eps`` is in squared units of the coordinates.
    blocks : ``arrange(points)``, where the caller has it already.

    Returns
    -------
    (N, 3) int64 and (N, 3) float32.
    """
    points, centers = _checked(points, "points"), _checked(centers, "centers")
    if len(centers) < 3:
        raise InvalidFrame(f"only {len(centers)} group centres", "at least 3 to interpolate between")
    index, d2 = kernels.three_of(blocks or arrange(points), centers)
    return index, inverse_weights(d2, np.float32(eps))


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
