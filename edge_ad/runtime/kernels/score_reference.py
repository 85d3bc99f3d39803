"""What the scoring kernels compute, in plain NumPy and double precision; the kernels are tested against this.

Rows of the colour table are interpolated bilinearly, rows of the point table from the three nearest centres; both by
``(index, weight)`` pairs of shape (n, taps). Equations are METHOD.md's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

F64 = NDArray[np.float64]
Taps = tuple[NDArray[np.int64], F64]
"""Row numbers and weights, both (n, taps)."""


def axis_taps(size: int, grid: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The lower of the two tokens and the share of the upper one, for each of ``size`` pixels of one axis.

    ``align_corners=False``; at the border both are the outermost token. Returns (size,) int32 and (size,) float32.
    """
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    low = np.floor(position).astype(np.int32)
    return low, (position - low).astype(np.float32)


def bilinear_taps(pixel: NDArray[Any], size: int, grid: int) -> Taps:
    """Taps of pixels (n,), flat indices into size x size, in a grid x grid table."""
    low, share = axis_taps(size, grid)
    high = np.minimum(low + 1, grid - 1)
    y, x = np.divmod(np.asarray(pixel, np.int64), size)
    v, u = share[y].astype(np.float64), share[x].astype(np.float64)
    index = np.stack(
        [low[y] * grid + low[x], low[y] * grid + high[x], high[y] * grid + low[x], high[y] * grid + high[x]]
    )
    weight = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u])
    return index.T.astype(np.int64), weight.T


def interpolate(table: NDArray[Any], taps: Taps) -> F64:
    """(rows, D) table -> (n, D)."""
    index, weight = taps
    return np.einsum("ntd,nt->nd", np.asarray(table, np.float64)[index], np.asarray(weight, np.float64))


def gelu(x: F64) -> F64:
    """Exact GELU."""
    return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))


def unit(x: F64) -> F64:
    """Rows over their norms, at least 1e-12."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))


def distance(x: F64, y: F64) -> F64:
    """Eq. 15 on unit vectors: (n, D), (n, D) -> (n,)."""
    return np.asarray(np.linalg.norm(unit(x) - unit(y), axis=-1))


def gacm(
    rgb_table: NDArray[Any],
    point_table: NDArray[Any],
    colour: Taps,
    near: Taps,
    dim_rgb: int,
    dim: int,
    gamma: NDArray[Any],
    beta: NDArray[Any],
    epsilon: float,
) -> F64:
    """Psi_3d, eq. 1-4 and 13. Columns of ``rgb_table``: feature (dim_rgb), F_sem, F_geo, R, W_g F_geo."""
    rows = interpolate(rgb_table, colour)[:, dim_rgb:]
    sem, geo, residual, gate = (rows[:, i * dim : (i + 1) * dim] for i in range(4))
    g = 1 / (1 + np.exp(-gate))
    fused = geo * g + sem * (1 - g)
    centred = fused - fused.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    return distance(interpolate(point_table, near)[:, :dim], residual + gelu(normal * gamma + beta))


def operand(table: NDArray[Any], taps: Taps, column: int, hidden: int, stride: int, activate: bool = True) -> F64:
    """Interpolated columns, through GELU, padded with zeros to ``stride`` columns: (n, stride)."""
    rows = interpolate(table, taps)[:, column : column + hidden]
    out = np.zeros((len(rows), stride))
    out[:, :hidden] = gelu(rows) if activate else rows
    return out


def product(a: NDArray[Any], w: NDArray[Any], bias: NDArray[Any]) -> F64:
    """(m, k), (n, k), (n,) -> (m, n)."""
    return np.asarray(np.asarray(a, np.float64) @ np.asarray(w, np.float64).T + np.asarray(bias, np.float64))


def class_means(anchors: NDArray[Any], mapped_rgb: NDArray[Any], mapped_3d: NDArray[Any]) -> F64:
    """(C,) mean distance of both modalities' mapped features (m, D) to each unit anchor (C, D)."""
    pairs = [
        [distance(a[None].astype(np.float64), np.asarray(m, np.float64)).mean() for m in (mapped_rgb, mapped_3d)]
        for a in anchors
    ]
    return np.asarray(pairs).mean(axis=1)


def pool(tokens: NDArray[np.float32], index: NDArray[Any]) -> NDArray[np.float32]:
    """(G, D) tokens -> (G, D) means over ``index`` (G, pool), summed in its order in float32."""
    total = tokens[index[:, 0]].copy()
    for k in range(1, index.shape[1]):
        total += tokens[index[:, k]]
    return np.asarray(total / np.float32(index.shape[1]), dtype=np.float32)


def filter_axis(image: NDArray[Any], taps: NDArray[Any], scale: float, vertical: bool) -> F64:
    """(S, S) -> (S, S): one axis of a smoothing filter with an odd number of taps, zeros beyond the border."""
    radius, size = len(taps) // 2, image.shape[0]
    padded = np.pad(np.asarray(image if vertical else image.T, np.float64), ((radius, radius), (0, 0)))
    out = np.sum([float(w) * padded[t : t + size] for t, w in enumerate(taps)], axis=0) * scale
    return np.asarray(out if vertical else out.T)


def over_levels(
    rgb: NDArray[Any],
    points: NDArray[Any],
    rgb_level: NDArray[Any],
    point_level: NDArray[Any],
    colour: Taps,
    near: Taps,
) -> tuple[F64, F64]:
    """Psi_rgb and Psi_3d (n,) over the tokens' expected distances, interpolated as the features are."""
    of_rgb, of_3d = interpolate(point_level[:, None], near)[:, 0], interpolate(rgb_level[:, None], colour)[:, 0]
    return np.asarray(rgb / of_rgb), np.asarray(points / of_3d)


def fuse(
    rgb: NDArray[np.float32],
    points: NDArray[np.float32],
    text: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    alpha: float,
    beta: float,
    larger: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Eq. 16, each operation rounded to float32; ``alpha`` and ``beta`` hold the balance.

    larger : factors of Psi_rgb and Psi_3d, of which the larger takes the place of their product.
    """
    psi = np.float32(alpha) * rgb * points
    if larger is not None:
        psi = np.float32(alpha) * np.maximum(rgb * np.float32(larger[0]), points * np.float32(larger[1]))
    if text is not None:
        psi = psi + np.float32(beta) * text[0] * text[1]
    return np.asarray(psi, dtype=np.float32)
