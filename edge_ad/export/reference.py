"""The literal torch model run on one sample: what every engine's answer is held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from edge_ad.frame import F32, Sample
from edge_ad.models.detector import ReferenceDetector
from edge_ad.runtime.point_input import PointInput, prepare_points


@dataclass(frozen=True)
class ReferenceResult:
    """terms : factor name -> (S, S) float32, 0 where invalid. map : (S, S) float32, smoothed. score : of the map."""

    terms: dict[str, F32]
    map: F32
    score: float


def spread(points: PointInput, valid: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Interpolation rows of the valid pixels spread over all: (P, 3) int64 and float32, zero weight elsewhere."""
    index = np.zeros((valid.size, 3), dtype=np.int64)
    weight = np.zeros((valid.size, 3), dtype=np.float32)
    index[valid.ravel()], weight[valid.ravel()] = points.interp_index, points.interp_weight
    return torch.from_numpy(index), torch.from_numpy(weight)


@torch.no_grad()
def score_reference(detector: ReferenceDetector, sample: Sample, scale_m: float, class_index: int) -> ReferenceResult:
    """METHOD.md sections 2, 3 and 6, every pixel and every layer as written.

    Raises
    ------
    InvalidFrame
        Fewer valid points than one group holds.
    """
    points = prepare_points(sample, detector.preset.points, scale_m)
    rgb_tokens, point_tokens = detector.tokens(
        torch.from_numpy(sample.rgb), torch.from_numpy(points.groups), torch.from_numpy(points.centers)
    )
    point_tokens = torch.from_numpy(points.pooled(point_tokens.numpy()))
    index, weight = spread(points, sample.valid)
    terms = detector.terms(rgb_tokens, point_tokens, index, weight, torch.from_numpy(sample.valid), class_index)
    anomaly = detector.anomaly_map(terms, torch.from_numpy(sample.valid))
    return ReferenceResult({k: v.numpy() for k, v in terms.items()}, anomaly.numpy(), detector.score(anomaly))
