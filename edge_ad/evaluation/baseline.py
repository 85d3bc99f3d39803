"""The plainest detector there is, to show how hard a data set is: a z-score a pixel, without any features.

For each class, the mean and the deviation of colour and of height at every pixel of the good training
parts; a part's score is its largest smoothed |z|. Where this comes near a method's own figure, the data set
does not speak for the method.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.metrics import auroc
from edge_ad.frame import F32, Bool, Frame, SampleTransform

SIZE = 224
SMOOTHING_PX = 2.0
# Below these a deviation is noise of the sensor, not a property of the part: grey levels, metres.
_FLOOR = np.asarray([2.0, 2.0, 2.0, 2e-4], dtype=np.float32)


@dataclass(frozen=True)
class PixelStatistics:
    """mean, deviation : (S, S, 4) float32, red, green, blue (0..255) and height (metres).
    depth_share : (S, S) share of the training parts with depth there."""

    mean: F32
    deviation: F32
    depth_share: F32


def _channels(frame: Frame, size: int) -> tuple[F32, Bool]:
    """(S, S, 4) colour and height on the whole image padded to a square, nearest sampling; (S, S) depth known.

    Height is the distance along the camera's axis below the frame's median distance, in metres.
    """
    height, width = frame.shape
    side = max(height, width)
    grid = SampleTransform((height - side) // 2, (width - side) // 2, side, size, height, width)
    rows, cols = grid.source_rows(), grid.source_cols()
    inside = ((rows >= 0) & (rows < height))[:, None] & ((cols >= 0) & (cols < width))[None, :]
    at = np.ix_(np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1))
    if frame.xyz is not None:
        distance = frame.xyz[..., 2][at]
    elif frame.depth is not None:
        distance = frame.depth[at].astype(np.float32) * np.float32(frame.depth_scale_m)
    else:
        raise InvalidFrame(f"{frame.name or frame.source}: no depth", "depth or xyz beside the colour")
    known = inside & np.isfinite(distance) & (distance > 0)
    if not known.any():
        raise InvalidFrame(f"{frame.name or frame.source}: no pixel has depth", "at least one")
    values = np.zeros((size, size, 4), dtype=np.float32)
    values[..., :3] = np.where(inside[..., None], frame.colour[at], 0)
    values[..., 3] = np.where(known, np.median(distance[known]) - distance, 0)
    return values, np.asarray(known, dtype=np.bool_)


def fit(frames: Iterable[Frame], size: int = SIZE) -> PixelStatistics:
    """Mean and deviation a pixel over good frames; needs two. Height counts only where it is known."""
    total: NDArray[np.float64] = np.zeros((size, size, 4))
    squares: NDArray[np.float64] = np.zeros((size, size, 4))
    seen: NDArray[np.float64] = np.zeros((size, size))
    n = 0
    for frame in frames:
        values, known = _channels(frame, size)
        total += values
        squares += np.square(values, dtype=np.float64)
        seen += known
        n += 1
    if n < 2:
        raise EdgeAdError(f"{n} training frames", "at least 2")
    count = np.dstack([np.full_like(seen, n)] * 3 + [np.maximum(seen, 1)])
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return PixelStatistics(
        mean.astype(np.float32), np.maximum(deviation, _FLOOR).astype(np.float32), (seen / n).astype(np.float32)
    )


def anomaly_map(frame: Frame, statistics: PixelStatistics, smoothing_px: float = SMOOTHING_PX) -> F32:
    """(S, S) float32: mean |z| of the three colours plus |z| of height, smoothed by a Gaussian.

    Height counts where it is known here and in half of the training frames.
    """
    values, known = _channels(frame, statistics.mean.shape[0])
    z = np.abs(values - statistics.mean) / statistics.deviation
    z[..., 3] *= known & (statistics.depth_share >= 0.5)
    together = np.ascontiguousarray(z[..., :3].mean(axis=2) + z[..., 3], dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(together, (0, 0), smoothing_px), dtype=np.float32)


def image_auroc(dataset: Dataset, size: int = SIZE) -> dict[str, float]:
    """I-AUROC of the baseline for each class: fitted on ``train``, scored on ``test``."""
    result = {}
    for name in dataset.classes:
        statistics = fit((item.frame() for item in dataset.select(name, "train")), size)
        items = dataset.select(name, "test")
        scores = [float(anomaly_map(item.frame(), statistics).max()) for item in items]
        result[name] = auroc([item.defect != "good" for item in items], scores)
    return result
