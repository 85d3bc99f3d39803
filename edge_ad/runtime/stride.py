"""Score stride: score every s-th pixel of the lattice and interpolate the distances between. Not exact for s > 1.

A valid pixel between lattice pixels gets the bilinear mean of those around it that are valid. Where none of them is
(a sliver thinner than the stride), the pixel itself is scored: every valid pixel has a distance of its own part.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, Bool


class StridePlan:
    """Which valid pixels of one sample are scored, and how the others get their distances.

    rows : (m,) int64, numbers of the scored pixels among the valid ones (row-major).
    """

    def __init__(self, valid: Bool, stride: int) -> None:
        size = valid.shape[0]
        offset, axis = _axis(size, stride)
        lattice = np.zeros_like(valid)
        lattice[offset::stride, offset::stride] = True
        known = (lattice & valid)[offset::stride, offset::stride].astype(np.float32)
        # Weights of the valid lattice pixels around each pixel; their sum is 0 where there are none.
        weight = axis @ known @ axis.T
        alone = valid & (weight <= 0)
        self._axis, self._known = axis, known > 0
        self._weight = weight[valid]
        self._alone = alone[valid]
        self._valid = valid
        scored = (lattice & valid) | alone
        self.rows: NDArray[np.int64] = np.flatnonzero(scored[valid])
        self._on_lattice = lattice[valid][self.rows] & ~self._alone[self.rows]

    def spread(self, values: F32) -> F32:
        """(m,) values of ``rows`` -> (n_valid,) float32, a weighted mean of the nearest scored pixels for the rest."""
        coarse = np.zeros(self._known.shape, np.float32)
        coarse[self._known] = values[self._on_lattice]
        full = (self._axis @ coarse @ self._axis.T)[self._valid]
        out = full / np.where(self._alone, np.float32(1), self._weight)
        out[self.rows] = values
        return np.asarray(out, dtype=np.float32)


def lattice_axis(size: int, stride: int) -> tuple[int, int, NDArray[np.int64], F32]:
    """One axis of the lattice: its first pixel and how many there are; for each of ``size`` pixels the lower of the two
    lattice positions around it, (size,) int64, and the share of the upper one, (size,) float32 (0 beyond the ends)."""
    offset = min((stride - 1) // 2, size - 1)
    many = len(range(offset, size, stride))
    at = np.clip((np.arange(size) - offset) / stride, 0, many - 1)
    low = np.minimum(at.astype(np.int64), many - 1)
    return offset, many, low, (at - low).astype(np.float32)


@lru_cache(maxsize=16)
def _axis(size: int, stride: int) -> tuple[int, F32]:
    """First lattice position and the (size, lattice) interpolation along one axis; constant beyond the ends."""
    offset, many, low, share = lattice_axis(size, stride)
    rows = np.arange(size)
    matrix = np.zeros((size, many), dtype=np.float32)
    matrix[rows, low] = 1 - share
    matrix[rows, np.minimum(low + 1, many - 1)] += share
    return offset, matrix
