"""From tokens to pixels (METHOD section 2): bilinear for RGB, three nearest centres for points."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from edge_ad.errors import EdgeAdError


def bilinear(tokens: Tensor, size: int) -> Tensor:
    """(T,D) tokens of a square grid, row-major -> (size*size,D), ``align_corners=False``."""
    side = math.isqrt(tokens.shape[0])
    if side * side != tokens.shape[0]:
        raise EdgeAdError(f"{tokens.shape[0]} RGB tokens", "a square grid")
    planes = tokens.T.reshape(1, -1, side, side)
    pixels = F.interpolate(planes, size=(size, size), mode="bilinear", align_corners=False)
    return pixels.flatten(2)[0].T


def three_nearest(tokens: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """(G,D) point tokens, (P,3) int64 centre numbers, (P,3) weights -> (P,D).

    Rows whose weights are 0 (pixels without a point) give the zero vector.
    """
    return (tokens[index] * weight.unsqueeze(-1)).sum(dim=1)
