"""I-AUROC, P-AUROC and AUPRO (METHOD section 8), exact with ties. NumPy and SciPy only.

Notation: n normal pixels in all images together; a *component* is one 8-connected region of the ground truth.
For a threshold t, FPR(t) is the share of the normal pixels above t, and PRO(t) is the mean over the components of the
share of their pixels above t (Bergmann et al., "The MVTec 3D Anomaly Detection Dataset", section 4).
AUPRO at a limit L is the area under PRO over FPR in [0, L], divided by L.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from edge_ad.errors import EdgeAdError
from edge_ad.frame import I64

Floats = NDArray[np.floating[Any]]
_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class PixelScores:
    """The pixels of a whole set of images, pooled once for every pixel metric.

    Attributes
    ----------
    normal : (n,) float32 or float64, sorted ascending: scores of the pixels outside every component.
    defect : (d,) same dtype, sorted ascending: scores of the pixels inside the components.
    weight : (d,) float64: 1 / (pixels of the pixel's component * number of components); sums to 1.
    components : number of components.
    """

    normal: Floats
    defect: Floats
    weight: NDArray[np.float64]
    components: int

    def auroc(self) -> float:
        """Area under the ROC curve over all pixels; every defect pixel counts the same."""
        return _auroc(self.normal, self.defect)

    def aupro(self, limit: float, thresholds: int | None = None) -> float:
        """AUPRO up to a false-positive rate of ``limit``; see :func:`aupro`."""
        if not 0.0 < limit <= 1.0:
            raise EdgeAdError(f"AUPRO limit {limit}", "a false-positive rate above 0 and at most 1, e.g. 0.3")
        if thresholds is None:
            return self._aupro_exact(float(limit))
        if isinstance(thresholds, bool) or int(thresholds) != thresholds or thresholds < 2:
            raise EdgeAdError(f"AUPRO thresholds {thresholds}", "a whole number of at least 2, or none for exact")
        return self._aupro_sampled(float(limit), int(thresholds))

    def _aupro_exact(self, limit: float) -> float:
        # The integral is linear in the components' pixels, so no curve is needed: a pixel of score s adds
        # its weight to PRO while the threshold passes s. Normal pixels that tie with it pass at the same time,
        # so the addition ramps from FPR a = #(normal > s) / n to b = #(normal >= s) / n.
        n = self.normal.size
        start = (n - np.searchsorted(self.normal, self.defect, side="right")) / n
        end = (n - np.searchsorted(self.normal, self.defect, side="left")) / n
        area = np.maximum(limit - 0.5 * (start + end), 0.0)  # whole ramp inside the limit
        cut = (start < limit) & (end > limit)
        area[cut] = (limit - start[cut]) ** 2 / (2.0 * (end[cut] - start[cut]))
        area[start >= limit] = 0.0
        # fsum: the mean of many tiny weights, rounded once.
        return min(math.fsum((self.weight * area).tolist()) / limit, 1.0)

    def _aupro_sampled(self, limit: float, thresholds: int) -> float:
        n = self.normal.size
        ranks = np.linspace(0, n - 1, num=thresholds, dtype=np.int64)[::-1]  # highest threshold first: FPR ascends
        below = np.searchsorted(self.defect, self.normal[ranks], side="right")
        weight_up_to = np.concatenate(([0.0], np.cumsum(self.weight)))
        # The FPR is the threshold's rank, not a strict count: among tied normal pixels the two differ.
        fpr = np.concatenate((1.0 - (ranks + 1) / n, [1.0]))
        pro = np.concatenate((weight_up_to[-1] - weight_up_to[below], [1.0]))
        inside = fpr <= limit
        x, y = fpr[inside], pro[inside]
        if x[-1] < limit:
            i = x.size  # FPR ascends and ends at 1 >= limit, so a next point exists
            share = (limit - x[-1]) / (fpr[i] - x[-1])
            x, y = np.append(x, limit), np.append(y, y[-1] + share * (pro[i] - y[-1]))
        return min(float(np.sum(0.5 * (y[1:] + y[:-1]) * np.diff(x)) / limit), 1.0)


def pool_pixels(
    masks: Sequence[ArrayLike], maps: Sequence[ArrayLike], valid: Sequence[ArrayLike] | None = None
) -> PixelScores:
    """Pool the pixels of all images.

    Parameters
    ----------
    masks : N arrays (H, W), bool or numbers; not zero is a defect. Sizes may differ from image to image.
    maps : N arrays (H, W), scores, higher is more anomalous. float32 stays float32.
    valid : N arrays (H, W) bool, or None for all pixels (what published tables do). Pixels outside are left
        out of both sides; components are found before, and one without a valid pixel is not counted.

    Raises
    ------
    EdgeAdError : shapes or numbers that differ, a NaN score, no defect pixel, no normal pixel.
    """
    if len(masks) != len(maps):
        raise EdgeAdError(f"{len(masks)} masks and {len(maps)} maps", "one mask a map")
    if valid is not None and len(valid) != len(maps):
        raise EdgeAdError(f"{len(valid)} valid masks and {len(maps)} maps", "one valid mask a map")
    normal: list[Floats] = []
    defect: list[Floats] = []
    sizes: list[NDArray[np.float64]] = []
    components = 0
    for i in range(len(maps)):
        mask, scores = np.asarray(masks[i]), _as_floats(maps[i], f"map {i}")
        if scores.ndim != 2 or mask.shape != scores.shape:
            raise EdgeAdError(f"mask {i} of shape {mask.shape}, map of {scores.shape}", "the same (H, W) for both")
        inside = mask != 0
        keep = np.ones(mask.shape, dtype=bool) if valid is None else np.asarray(valid[i], dtype=bool)
        if keep.shape != mask.shape:
            raise EdgeAdError(f"valid mask {i} of shape {keep.shape}, map of {mask.shape}", "the same (H, W)")
        normal.append(scores[keep & ~inside])
        if inside.any():
            labels = ndimage.label(inside, structure=_EIGHT_CONNECTED)[0][keep & inside]
            pixels = np.bincount(labels)
            components += int(np.count_nonzero(pixels))
            defect.append(scores[keep & inside])
            sizes.append(pixels[labels].astype(np.float64))
    if components == 0:
        raise EdgeAdError("no defect pixel in any mask", "at least one", "pixel metrics need defective test parts")
    pooled = np.concatenate(normal)
    if pooled.size == 0:
        raise EdgeAdError("no normal pixel in any mask", "at least one", "are the masks inverted?")
    pooled.sort()
    scores_in = np.concatenate(defect)
    order = np.argsort(scores_in, kind="stable")
    weight = 1.0 / (np.concatenate(sizes)[order] * components)
    return PixelScores(pooled, scores_in[order], weight, components)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: P(score of a defect > score of a good one) + P(equal) / 2, exact with ties.

    labels : (N,) bool or 0/1, 1 is defective. scores : (N,) numbers, higher is more anomalous.
    Raises EdgeAdError on shapes that differ, a NaN score, other labels, or when one of the two kinds is missing.
    """
    y, s = np.asarray(labels), _as_floats(scores, "scores")
    if y.ndim != 1 or y.shape != s.shape:
        raise EdgeAdError(f"labels of shape {y.shape}, scores of {s.shape}", "two lists of the same length")
    if not np.isin(y, (0, 1)).all():
        raise EdgeAdError("labels other than 0 and 1", "0 (good) or 1 (defective)")
    good, bad = s[y == 0], s[y == 1]
    if bad.size == 0 or good.size == 0:
        raise EdgeAdError(f"AUROC of {bad.size} defective and {good.size} good parts", "at least one of each")
    return _auroc(np.sort(good), bad)


def pixel_auroc(
    masks: Sequence[ArrayLike], maps: Sequence[ArrayLike], valid: Sequence[ArrayLike] | None = None
) -> float:
    """P-AUROC over all pixels of all images, or over the ``valid`` ones; arguments as in :func:`pool_pixels`."""
    return pool_pixels(masks, maps, valid).auroc()


def aupro(
    masks: Sequence[ArrayLike],
    maps: Sequence[ArrayLike],
    limit: float,
    thresholds: int | None = None,
    valid: Sequence[ArrayLike] | None = None,
) -> float:
    """Normalised area under the per-region-overlap curve up to a false-positive rate of ``limit``.

    Parameters
    ----------
    masks, maps, valid : as in :func:`pool_pixels`.
    limit : upper end of the false-positive rate, in (0, 1]; 0.3 and 0.01 are the published ones.
    thresholds : None integrates exactly over all distinct scores. A number n reproduces the data set's own evaluation
        code: n thresholds at evenly spaced ranks (rounded down, first and last included) of all normal pixels'
        scores, overlap strictly above the threshold, curve closed by (1, 1), trapezoids, linear
        interpolation at the limit. Few thresholds misstate a small limit: name n beside the figure.

    Returns
    -------
    float in [0, 1].
    """
    return pool_pixels(masks, maps, valid).aupro(limit, thresholds)


def false_reject_rate(scores_good: ArrayLike, threshold: float) -> float:
    """Share of good parts that ``score > threshold`` rejects."""
    return _share_above(scores_good, threshold, "good")


def recall(scores_defective: ArrayLike, threshold: float) -> float:
    """Share of defective parts that ``score > threshold`` finds."""
    return _share_above(scores_defective, threshold, "defective")


def threshold_at_false_rejects(scores_good: ArrayLike, rate: float) -> float:
    """Lowest score among these very parts so that ``score > it`` rejects at most a share ``rate`` of them.

    For evaluation on a test set only, it promises nothing for new parts: see ``edge_ad.calibration.thresholds``.
    """
    s = np.sort(_as_floats(scores_good, "scores of good parts").ravel())
    if s.size == 0:
        raise EdgeAdError("no good part", "at least one")
    if not 0.0 <= rate < 1.0:
        raise EdgeAdError(f"false-reject rate {rate}", "at least 0 and below 1")
    allowed = math.floor(rate * s.size + 1e-9)  # 0.05 * 60 is 3, whatever binary floats make of it
    return float(s[s.size - 1 - allowed])


def _share_above(scores: ArrayLike, threshold: float, kind: str) -> float:
    s = _as_floats(scores, f"scores of {kind} parts")
    if s.size == 0:
        raise EdgeAdError(f"no {kind} part", "at least one")
    if math.isnan(threshold):
        raise EdgeAdError("threshold nan", "a number")
    return float(np.count_nonzero(s > threshold)) / s.size


def _auroc(normal_sorted: Floats, defect: Floats) -> float:
    # Integer counts: the only rounding is the last division.
    less: I64 = np.searchsorted(normal_sorted, defect, side="left")
    less_or_equal: I64 = np.searchsorted(normal_sorted, defect, side="right")
    twice = int(less.sum()) + int(less_or_equal.sum())
    return twice / (2 * normal_sorted.size * defect.size)


def _as_floats(values: ArrayLike, what: str) -> Floats:
    a = np.asarray(values)
    if a.dtype not in (np.float32, np.float64):
        try:
            a = a.astype(np.float32 if a.dtype == np.float16 else np.float64)
        except (TypeError, ValueError):
            raise EdgeAdError(f"{what} of type {a.dtype}", "numbers") from None
    if np.isnan(a).any():
        raise EdgeAdError(f"{what}: {int(np.isnan(a).sum())} of {a.size} values are NaN", "a score for each")
    return a
