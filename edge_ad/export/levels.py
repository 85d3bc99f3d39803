"""The token graph of a model with expected distances (:mod:`edge_ad.models.levels`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.export.token_graph import TokenGraph, after
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
        levels = detector.levels
        if self.tables.by_class:  # the class's features are at hand, turned
            self.of_3d = _Head(levels.of_3d, self.tables.read_rgb(levels.of_3d.fc1))
            self.of_rgb = _Head(levels.of_rgb, self.tables.read_points(levels.of_rgb.fc1))
        else:
            self.of_3d = _Head(levels.of_3d, after(levels.of_3d.fc1, detector.rgb_weight, detector.rgb_offset))
            self.of_rgb = _Head(levels.of_rgb, after(levels.of_rgb.fc1, detector.point_weight, detector.point_offset))

    def forward(
        self, rgb_tokens: Tensor, point_tokens: Tensor, class_index: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        x, y = self.tables.features(rgb_tokens, point_tokens, class_index)
        tables = self.tables.products(rgb_tokens, point_tokens, x, y)
        if self.tables.by_class:
            return (*tables, self.of_3d(x), self.of_rgb(y))
        return (*tables, self.of_3d(rgb_tokens), self.of_rgb(point_tokens))


class _Head(nn.Module):
    """A level whose first layer was composed with what comes before it."""

    limits: Tensor

    def __init__(self, level: Level, first: nn.Linear) -> None:
        super().__init__()
        self.first, self.last = first, level.fc2
        self.register_buffer("limits", level.limits)

    def forward(self, tokens: Tensor) -> Tensor:
        return limited(self.last(F.gelu(self.first(tokens))).squeeze(-1), self.limits)


def token_graph(detector: ReferenceDetector) -> tuple[nn.Module, list[str]]:
    """The module of ``tokens.onnx`` and the names of its outputs."""
    if detector.levels is None:
        return TokenGraph(detector), TABLES
    with torch.no_grad():
        return LevelledTokenGraph(detector), [*TABLES, *LEVELS]
