"""The scoring stage: interpolate rows of the token tables for the valid pixels, run the score graph in chunks.

METHOD.md section 7: every linear layer that acts on an interpolated feature has already run on the tokens
(``tokens.onnx``), so a pixel's row is a weighted sum of 4 colour-token rows and one of 3 point-token rows. Only valid
pixels are scored and no array of all pixels times all channels exists.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from edge_ad.frame import F32, Bool
from edge_ad.runtime.backends.base import Session
from edge_ad.runtime.point_input import PointInput

CHUNK = 2048
"""Rows scored at a time: the rows of both tables stay within a few megabytes."""


@lru_cache(maxsize=4)
def bilinear_matrix(grid: int, size: int) -> csr_matrix:
    """Bilinear interpolation (``align_corners=False``), grid x grid tokens to size x size pixels, as a sparse matrix.

    Returns
    -------
    (size * size, grid * grid) float32; each row has up to 4 weights that sum to 1.
    """
    position = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    low = np.minimum(position.astype(np.int64), grid - 1)
    high = np.minimum(low + 1, grid - 1)
    share = (position - low).astype(np.float64)
    axis_index = np.stack([low, high], axis=1)
    axis_weight = np.stack([1 - share, share], axis=1)
    index = axis_index[:, None, :, None] * grid + axis_index[None, :, None, :]
    weight = axis_weight[:, None, :, None] * axis_weight[None, :, None, :]
    rows = np.repeat(np.arange(size * size), 4)
    matrix = csr_matrix(
        (weight.reshape(-1).astype(np.float32), (rows, index.reshape(-1))), shape=(size * size, grid * grid)
    )
    matrix.sum_duplicates()
    return matrix


def point_matrix(points: PointInput, groups: int) -> csr_matrix:
    """The 3-NN interpolation as a sparse matrix, (n_valid, groups) float32."""
    n = len(points.interp_index)
    starts = np.arange(0, 3 * n + 1, 3)
    return csr_matrix((points.interp_weight.ravel(), points.interp_index.ravel(), starts), shape=(n, groups))


def score_pixels(
    session: Session,
    rgb_table: F32,
    point_table: F32,
    valid: Bool,
    points: PointInput,
    class_index: int,
    rows: NDArray[np.int64] | None = None,
    chunk: int = CHUNK,
) -> dict[str, F32]:
    """Distances of the valid pixels.

    Parameters
    ----------
    session : the score graph. rgb_table : (T, W_rgb). point_table : (G, W_3d), both from ``tokens.onnx``.
    valid : (S, S) bool. points : interpolation of the valid pixels, in the same order.
    class_index : which anchor. rows : score only these of the valid pixels.

    Returns
    -------
    dict of (n,) float32: ``rgb`` (eq. 12), ``3d`` (eq. 13), and where there is text ``text_rgb`` and ``text_3d``,
    whose product is eq. 14.
    """
    grid = int(round(np.sqrt(len(rgb_table))))
    pixels = np.flatnonzero(valid.ravel())
    to_points = point_matrix(points, len(point_table))
    if rows is not None:
        pixels, to_points = pixels[rows], to_points[rows]
    to_rgb = bilinear_matrix(grid, valid.shape[0])[pixels]
    which = np.array([class_index], dtype=np.int64)
    parts: dict[str, list[F32]] = {}
    for start in range(0, len(pixels), chunk):
        end = min(start + chunk, len(pixels))
        inputs: dict[str, NDArray[np.generic]] = {
            "rgb_rows": np.ascontiguousarray(to_rgb[start:end] @ rgb_table, dtype=np.float32),
            "point_rows": np.ascontiguousarray(to_points[start:end] @ point_table, dtype=np.float32),
        }
        if "class_index" in {i.name for i in session.inputs}:
            inputs["class_index"] = which
        for name, value in session.run(inputs).items():
            parts.setdefault(name, []).append(value)
    return {name: np.concatenate(values) for name, values in parts.items()}


def fuse(distances: dict[str, F32], alpha: float, beta: float, balance: tuple[float, float, float]) -> F32:
    """Eq. 16 over pixels: ``alpha Psi_rgb Psi_3d + beta Psi_text``, each term over its balance.

    ``balance`` holds the divisors of Psi_rgb, Psi_3d and Psi_text: ones, or their means on held-out good pixels.
    """
    psi = np.float32(alpha / (balance[0] * balance[1])) * distances["rgb"] * distances["3d"]
    if beta > 0 and "text_rgb" in distances:
        psi = psi + np.float32(beta / balance[2]) * distances["text_rgb"] * distances["text_3d"]
    return np.asarray(psi, dtype=np.float32)
