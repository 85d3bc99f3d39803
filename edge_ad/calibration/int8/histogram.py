"""A histogram of absolute values that grows with what it sees. Lean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError

BINS = 2048


@dataclass
class Histogram:
    """Counts of ``|x|`` in :data:`BINS` equal bins over ``0 .. top``; ``peak`` is the largest value seen.

    When a value lies beyond ``top``, neighbouring bins are joined and ``top`` doubles, so no value is ever lost and the
    order of the batches changes at most the width of the bins.
    """

    top: float = 0.0
    peak: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS, np.float64))

    def add(self, values: NDArray[Any]) -> None:
        """Count an array of any shape. EdgeAdError when a value is not finite."""
        size = np.abs(values, dtype=np.float32).ravel()
        if not size.size:
            return
        largest = float(size.max())
        if not np.isfinite(largest):
            raise EdgeAdError("an activation is not finite", "finite values on the calibration frames")
        self.peak = max(self.peak, largest)
        if largest == 0 and self.top == 0:
            self.counts[0] += size.size
            return
        if self.top == 0:
            self.top = largest
        while self.top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2)])
            self.top *= 2
        # In float32 for speed, unless the values are so small that the factor would overflow.
        kind = np.float32 if self.top > 1e-30 else np.float64
        bins = np.minimum((size * kind(BINS / self.top)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def total(self) -> float:
        """Values counted."""
        return float(self.counts.sum())

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,) middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (self.top / BINS), dtype=np.float64)
