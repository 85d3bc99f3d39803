"""Distances, smoothing and the image score (METHOD section 6, eq. 12-16)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_ad.errors import EdgeAdError

# CFM's approximation of a Gaussian blur: (window, repetitions).
BOX_CASCADE = ((5, 5), (7, 3))
GAUSSIAN_TRUNCATE = 4.0


def distance(x: Tensor, y: Tensor) -> Tensor:
    """D(x, y) = || x/|x| - y/|y| ||_2 along the last axis (eq. 15 on unit vectors); shapes broadcast.

    The difference is taken, never sqrt(2 - 2 cos): near 0, where good parts lie, that loses three digits in float32.
    """
    norm: Tensor = torch.linalg.vector_norm(F.normalize(x, dim=-1) - F.normalize(y, dim=-1), dim=-1)
    return norm


def smooth(anomaly_map: Tensor, method: str, sigma: float = 4.0) -> Tensor:
    """Smooth an (S,S) map; beyond its border the map counts as 0.

    method : ``box-cascade`` (5 times 5x5, then 3 times 7x7, as CFM publishes), ``gaussian`` (``sigma`` pixels, cut at
        4 sigma, as ``scipy.ndimage.gaussian_filter(mode="constant")``) or ``none``.
    """
    if method == "none":
        return anomaly_map
    x = anomaly_map[None, None]
    if method == "box-cascade":
        for window, repetitions in BOX_CASCADE:
            for _ in range(repetitions):
                x = F.avg_pool2d(x, window, stride=1, padding=window // 2)
    elif method == "gaussian":
        if not sigma > 0:
            raise EdgeAdError(f"fusion.sigma is {sigma}", "more than 0 (pixels)")
        radius = int(GAUSSIAN_TRUNCATE * sigma + 0.5)
        at = torch.arange(-radius, radius + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (at / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(x)
        x = F.conv2d(x, kernel.reshape(1, 1, -1, 1), padding=(radius, 0))
        x = F.conv2d(x, kernel.reshape(1, 1, 1, -1), padding=(0, radius))
    else:
        raise EdgeAdError(f"fusion.smoothing is '{method}'", "box-cascade, gaussian or none")
    return x[0, 0]


RIM_WEIGHT = 0.02
"""Weight of a pixel within ``fusion.rim`` of an invalid one."""


def rim_weight(valid: Tensor, rim: int) -> Tensor:
    """(S,S) bool -> (S,S) float32 weights: 0 where invalid, RIM_WEIGHT where a pixel of the square window of
    2 ``rim`` + 1 is invalid, else 1. Beyond the border counts as valid: a part may go on there.

    At a part's edge depth mixes front and background, groups are cut off and colour bleeds: good parts are loudest
    there. A part that is all rim (a wire) keeps its map, since the weights cancel in the mean.
    """
    invalid = (~valid).float()[None, None]
    near = F.max_pool2d(invalid, 2 * rim + 1, stride=1, padding=rim)[0, 0]  # pads with -inf: not invalid
    return torch.where(valid, torch.where(near > 0, RIM_WEIGHT, 1.0), 0.0)


def smooth_over_valid(
    anomaly_map: Tensor, valid: Tensor, method: str, sigma: float = 4.0, rim: int = 0, spread: int = 0
) -> Tensor:
    """:func:`smooth` as a weighted mean of the valid pixels alone: an (S,S) map, 0 where ``valid`` (S,S) is False.

    Zeros at invalid pixels would pull a defect down that borders on lost depth, as defects do. ``rim`` : pixels this
    near to an invalid one weigh RIM_WEIGHT. ``spread`` : the mean is taken at invalid pixels as well, within a square
    window of 2 ``spread`` + 1 around a valid one, but is no larger there than at the valid pixel where it is largest:
    material that is missing, or whose depth is lost, lies there, and the score stays that of the valid pixels.
    """
    if method == "none":
        return anomaly_map
    weight = rim_weight(valid, rim).to(anomaly_map)
    total = smooth(weight, method, sigma)
    mean = smooth(anomaly_map * weight, method, sigma) / total.clamp_min(1e-6)
    inside = torch.where(valid, mean, 0.0)
    if spread == 0:
        return inside
    near = F.max_pool2d(valid.float()[None, None], 2 * spread + 1, stride=1, padding=spread)[0, 0] > 0
    return torch.where(near, mean.clamp_max(inside.max()), 0.0)


def image_score(anomaly_map: Tensor, method: str = "max") -> Tensor:
    """Score of an (S,S) map, a 0-d tensor: ``max``, or CFM's ``max-over-rms`` = max / sqrt(mean of the non-zero map).

    A map of zeros (nothing valid) scores 0.
    """
    peak = anomaly_map.max()
    if method == "max":
        return peak
    if method == "max-over-rms":
        inside = anomaly_map[anomaly_map != 0]
        return peak / inside.mean().sqrt() if inside.numel() else peak
    raise EdgeAdError(f"fusion.score is '{method}'", "max or max-over-rms")
