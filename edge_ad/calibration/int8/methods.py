"""Four ways to choose the range of a quantised tensor from its histogram. Lean.

A range ``r`` means: 8 bits tell ``-r .. r`` apart in steps of ``r / 127``, and what lies beyond is clipped to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.int8.histogram import BINS, Histogram
from edge_ad.errors import EdgeAdError

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
LEVELS = 127
_QUANTISED = 128  # bins of the quantised distribution in the entropy method
_STEP = 8


def choose_range(histogram: Histogram, method: str, percentile: float = PERCENTILE) -> float:
    """The range by one of :data:`METHODS`; 0 for a tensor that was always 0.

    minmax : the largest absolute value. percentile : below it lie so many of 100 values. entropy : least
    Kullback-Leibler
    divergence of the clipped from the quantised distribution (Migacz, "8-bit inference with TensorRT", GTC 2017).
    mse : least mean squared error of clipping and rounding together.

    Raises
    ------
    EdgeAdError
        An unknown method, a percentile outside (0, 100], or nothing counted.
    """
    if method not in METHODS:
        raise EdgeAdError(f"calibration method '{method}'", f"one of {', '.join(METHODS)}")
    if not histogram.total:
        raise EdgeAdError("no activation was counted", "at least one calibration frame")
    if histogram.peak == 0:
        return 0.0
    if method == "minmax":
        return histogram.peak
    if method == "percentile":
        return min(_percentile(histogram, percentile), histogram.peak)
    return min(_entropy(histogram) if method == "entropy" else _mse(histogram), histogram.peak)


def _percentile(histogram: Histogram, percentile: float) -> float:
    if not 0 < percentile <= 100:
        raise EdgeAdError(f"percentile {percentile}", "above 0, at most 100")
    if percentile == 100:
        return histogram.peak
    share = np.cumsum(histogram.counts) / histogram.total
    at = int(np.searchsorted(share, percentile / 100))
    return (min(at, BINS - 1) + 1) * histogram.top / BINS


def _entropy(histogram: Histogram) -> float:
    counts = histogram.counts.copy()
    counts[0] = counts[1]  # exact zeros (ReLU) cost nothing in any range, and would outweigh all else
    used = int(np.nonzero(histogram.counts)[0][-1]) + 1
    if used <= _QUANTISED:
        return histogram.peak
    best, found = np.inf, used
    for size in range(_QUANTISED, used + 1, _STEP):
        divergence = _divergence(counts, size)
        if divergence < best:
            best, found = divergence, size
    if _divergence(counts, used) < best:
        found = used
    return found * histogram.top / BINS


def _divergence(counts: NDArray[np.float64], size: int) -> float:
    """KL divergence of the first ``size`` bins, the rest clipped into the last, from their 128-level form."""
    p = counts[:size].copy()
    p[-1] += counts[size:].sum()
    edges = (np.arange(_QUANTISED + 1) * size) // _QUANTISED
    inside = counts[:size]
    sums = np.add.reduceat(inside, edges[:-1])
    filled = np.add.reduceat((inside > 0).astype(np.float64), edges[:-1])
    level = np.repeat(np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0), np.diff(edges))
    q = np.where(inside > 0, level, 0.0)
    if p.sum() == 0 or q.sum() == 0:
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    seen = p > 0
    if (q[seen] == 0).any():  # mass clipped into an empty bin
        q = np.maximum(q, 1e-9)
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


def _mse(histogram: Histogram) -> float:
    x, weight = histogram.centres, histogram.counts
    best, found = np.inf, histogram.peak
    for limit in np.linspace(histogram.peak / 50, histogram.peak, 200):
        step = limit / LEVELS
        error = np.minimum(np.rint(x / step), LEVELS) * step - x
        cost = float((weight * error * error).sum())
        if cost < best:
            best, found = cost, float(limit)
    return found
