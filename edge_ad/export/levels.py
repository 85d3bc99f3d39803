"""The token graph of a model with expected distances (:mod:`edge_ad.models.levels`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.export.graphs import TokenGraph
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.levels import Level, limited
from edge_ad.runtime.scoring import LEVELS

TABLES = ["rgb_table", "point_table"]


class LevelledTokenGraph(nn.Module):
    """:class:`TokenGraph`, and ``rgb_level`` (T,) and ``point_level`` (G,).

    The first is what Psi_3d is expected to be at each colour token, the second what Psi_rgb is at each point token. A
    pixel's level is interpolated from them as its features are.
    """

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        assert detector.levels is not None
        self.tables = TokenGraph(detector)
        self.of_3d = _Head(detector.levels.of_3d, detector.rgb_weight, detector.rgb_offset)
        self.of_rgb = _Head(detector.levels.of_rgb, detector.point_weight, detector.point_offset)

    def forward(self, rgb_tokens: Tensor, point_tokens: Tensor) -> tuple[Tensor, ...]:
        return (*self.tables(rgb_tokens, point_tokens), self.of_3d(rgb_tokens), self.of_rgb(point_tokens))


class _Head(nn.Module):
    """A level that reads raw tokens: the standardisation is composed with its first layer, in float64."""

    limits: Tensor

    def __init__(self, level: Level, weight: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.first = nn.Linear(weight.shape[1], level.fc1.out_features).requires_grad_(False)
        own = level.fc1.weight.detach().double()
        self.first.weight.copy_(own @ weight.double())
        self.first.bias.copy_(own @ offset.double() + level.fc1.bias.detach().double())
        self.last = level.fc2
        self.register_buffer("limits", level.limits)

    def forward(self, tokens: Tensor) -> Tensor:
        return limited(self.last(F.gelu(self.first(tokens))).squeeze(-1), self.limits)


def token_graph(detector: ReferenceDetector) -> tuple[nn.Module, list[str]]:
    """The module of ``tokens.onnx`` and the names of its outputs."""
    if detector.levels is None:
        return TokenGraph(detector), TABLES
    with torch.no_grad():
        return LevelledTokenGraph(detector), [*TABLES, *LEVELS]
