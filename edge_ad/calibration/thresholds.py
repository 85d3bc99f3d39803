"""Score thresholds from held-out good parts, for a chosen false-reject rate (split conformal).

With the scores of n good parts that the fit has not seen, and a wished rate r, the threshold is the k-th largest score,
``k = floor(r (n + 1))``. A new good part is exchangeable with the n, so each of its n + 1 ranks is equally likely,
and it exceeds the k-th largest with probability at most ``k / (n + 1) <= r``, whatever the distribution
(Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; ties only make it smaller).
The decision rule is ``score > threshold``, strictly.

The promise is on average over the draw of the calibration parts. For the n parts at hand the true rate is
Beta(k, n + 1 - k) distributed; ``Threshold.rate_upper_95`` is its 95 % point, the honest worst case to plan with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, Bool


@dataclass(frozen=True)
class Threshold:
    """A threshold and how it was set.

    Attributes
    ----------
    value : a part (or pixel) is anomalous when its score is strictly above.
    n_parts : held-out good parts. false_reject_rate : the rate that was asked for.
    rank : k, the threshold is the k-th largest good score. promised_rate : k / (n_parts + 1).
    rate_upper_95 : with 95 % confidence the true rate of this very threshold is below.
    """

    value: float
    n_parts: int
    false_reject_rate: float
    rank: int
    promised_rate: float
    rate_upper_95: float

    def rejects(self, score: float) -> bool:
        """``score > value``; a NaN score is rejected (nothing unknown passes)."""
        return not score <= self.value

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``value`` unrounded, so that decisions survive the file."""
        return asdict(self)


def parts_needed(rate: float) -> int:
    """Fewest held-out good parts for which a false-reject rate can be promised: ``ceil(1 / rate) - 1``."""
    return math.ceil(1 / _exact(rate)) - 1


def threshold_for(scores_good: ArrayLike, false_reject_rate: float, *, class_name: str = "") -> Threshold:
    """Threshold for ``score > threshold`` that promises at most ``false_reject_rate`` on new good parts.

    Parameters
    ----------
    scores_good : (n,) scores of good parts that neither the fit nor the balance of the terms has seen.
    false_reject_rate : in (0, 1), e.g. 0.05.
    class_name : for the messages.

    Raises
    ------
    EdgeAdError : scores that are not finite, a rate outside (0, 1), or too few parts, with how many are needed.
    """
    where = f"class '{class_name}': " if class_name else ""
    scores: NDArray[np.float64] = np.asarray(scores_good, dtype=np.float64).ravel()
    rate = _exact(false_reject_rate)
    n = int(scores.size)
    if not np.isfinite(scores).all():
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        raise EdgeAdError(f"{where}{bad} of {n} calibration scores are not finite", "a score for each good part")
    k = math.floor(rate * (n + 1))
    if k < 1:
        lowest = f"{100.0 / (n + 1):.3g} %"
        raise EdgeAdError(
            f"{where}false-reject rate {100.0 * false_reject_rate:.3g} % from {n} held-out good parts",
            f"at least 1 / (n + 1) = {lowest}",
            f"use {parts_needed(false_reject_rate)} good parts or more, or a higher rate",
        )
    value = float(np.sort(scores)[n - k])
    upper = float(betaincinv(k, n + 1 - k, 0.95))
    return Threshold(value, n, float(false_reject_rate), k, k / (n + 1), upper)


def mask_threshold_for(
    maps_good: Sequence[F32], valids: Sequence[Bool], false_reject_rate: float, *, class_name: str = ""
) -> Threshold:
    """Threshold for the pixels of the mask, so that a new good part has an empty mask with probability 1 - rate.

    It is :func:`threshold_for` of each part's highest valid pixel. When the image score *is* the maximum of the
    map, this is the image threshold itself, and that is what a detector uses: a part is anomalous exactly when a
    pixel is above, so mask and decision cannot contradict each other. When the score is another one (``max-over-rms``),
    image threshold and pixels live on different scales, and the mask needs this threshold of its own.

    maps_good : n maps (S, S) float32. valids : n masks (S, S) bool; a part without a valid pixel is an error.
    """
    if len(maps_good) != len(valids):
        raise EdgeAdError(f"{len(maps_good)} maps and {len(valids)} valid masks", "one mask a map")
    peaks = []
    for i, (anomaly, valid) in enumerate(zip(maps_good, valids, strict=True)):
        if anomaly.shape != valid.shape:
            raise EdgeAdError(f"map {i} of shape {anomaly.shape}, valid mask of {valid.shape}", "one grid")
        if not valid.any():
            raise EdgeAdError(f"calibration part {i} has no valid pixel", "a scored part", "leave the part out")
        peaks.append(float(anomaly[valid].max()))
    return threshold_for(peaks, false_reject_rate, class_name=class_name)


def _exact(rate: float) -> Fraction:
    # The decimal that was written: 0.29 * 100 is 28.999... in binary, and the floor would lose a part.
    if not 0.0 < rate < 1.0:
        raise EdgeAdError(f"false-reject rate {rate}", "above 0 and below 1, e.g. 0.05")
    return Fraction(repr(float(rate)))
