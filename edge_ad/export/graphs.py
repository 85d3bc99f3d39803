"""The four graphs of a bundle as torch modules: the model of ``edge_ad.models``, restructured exactly.

METHOD.md section 7: a linear layer commutes with an interpolation whose weights sum to 1. So every linear layer that
the reference applies to an interpolated feature runs here on the tokens (:class:`TokenGraph`), and a pixel only reads a
weighted sum of table rows (:class:`ScoreGraph`). Equal to the reference in real arithmetic.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Cfm, Gacm, Mlp


class RgbGraph(nn.Module):
    """``image`` (1, 3, S, S) -> ``rgb_tokens`` (T, D_rgb)."""

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        self.encoder = detector.rgb_encoder

    def forward(self, image: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(image)[0]
        return tokens


class PointGraph(nn.Module):
    """``groups`` (1, G, K, 3), ``centers`` (1, G, 3) -> ``point_tokens`` (G, D_3d)."""

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        self.encoder = detector.point_encoder

    def forward(self, groups: Tensor, centers: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(groups, centers)[0]
        return tokens


def _first_linear(mapper: Gacm | Cfm | Mlp) -> nn.ModuleList:
    """The linear layers of a mapper that act straight on its input."""
    if isinstance(mapper, Gacm):
        return nn.ModuleList([mapper.phi_s, mapper.phi_g, mapper.residual])
    return nn.ModuleList([mapper.fc1])


def column_widths(detector: ReferenceDetector) -> tuple[list[int], list[int]]:
    """Widths of the column blocks of the colour table and of the point table, in order."""
    m, d_rgb, d_3d = detector.mappers, detector.preset.feature_rgb, detector.preset.feature_points
    if isinstance(m.rgb_to_3d, Gacm):
        rgb = [d_rgb, d_3d, d_3d, d_3d, d_3d]  # feature, F_sem, F_geo, R, W_g F_geo
    else:
        rgb = [d_rgb, m.rgb_to_3d.fc1.out_features]
    points = [d_3d, m.points_to_rgb.fc1.out_features]
    if m.rgb_to_text is not None and m.points_to_text is not None:
        rgb.append(m.rgb_to_text.fc1.out_features)
        points.append(m.points_to_text.fc1.out_features)
    return rgb, points


class TokenGraph(nn.Module):
    """Both token sets -> every token-side linear product: ``rgb_table`` (T, W_rgb), ``point_table`` (G, W_3d).

    Columns: the standardised feature itself, then the first layers of the mappers that read it (:func:`column_widths`).
    """

    rgb_weight: Tensor
    rgb_offset: Tensor
    point_weight: Tensor
    point_offset: Tensor

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        m = detector.mappers
        for name in ("rgb_weight", "rgb_offset", "point_weight", "point_offset"):
            self.register_buffer(name, getattr(detector, name).clone())
        self.rgb_layers = _first_linear(m.rgb_to_3d)
        self.gate = m.rgb_to_3d.w_g if isinstance(m.rgb_to_3d, Gacm) else None
        self.point_layers = _first_linear(m.points_to_rgb)
        if m.rgb_to_text is not None and m.points_to_text is not None:
            self.rgb_text: nn.Linear | None = m.rgb_to_text.fc1
            self.point_text: nn.Linear | None = m.points_to_text.fc1
        else:
            self.rgb_text = self.point_text = None

    def forward(self, rgb_tokens: Tensor, point_tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = rgb_tokens @ self.rgb_weight.T + self.rgb_offset
        y = point_tokens @ self.point_weight.T + self.point_offset
        rgb = [x] + [layer(x) for layer in self.rgb_layers]
        if self.gate is not None:
            rgb.append(self.gate(rgb[2]))  # W_g F_geo (eq. 3)
        points = [y] + [layer(y) for layer in self.point_layers]
        if self.rgb_text is not None and self.point_text is not None:
            rgb.append(self.rgb_text(x))
            points.append(self.point_text(y))
        return torch.cat(rgb, dim=1), torch.cat(points, dim=1)


class ScoreGraph(nn.Module):
    """Interpolated table rows of n pixels, class index (1,) int64 -> the distances of eq. 12-14, each (n,).

    ``rgb``, ``3d`` and, with text, ``text_rgb`` and ``text_3d``, whose product is eq. 14. The anchors are a constant.
    """

    anchors: Tensor

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        m = detector.mappers
        self.rgb_widths, self.point_widths = column_widths(detector)
        self.gacm_norm = m.rgb_to_3d.norm if isinstance(m.rgb_to_3d, Gacm) else None
        self.rgb_rest = _rest(m.rgb_to_3d)
        self.point_rest = _rest(m.points_to_rgb)
        self.has_text = m.has_text
        if m.rgb_to_text is not None and m.points_to_text is not None:
            self.rgb_text, self.point_text = m.rgb_to_text.fc2, m.points_to_text.fc2
            self.register_buffer("anchors", _unit(detector.anchors))

    def forward(self, rgb_rows: Tensor, point_rows: Tensor, class_index: Tensor | None = None) -> tuple[Tensor, ...]:
        rgb = list(torch.split(rgb_rows, self.rgb_widths, dim=1))
        points = list(torch.split(point_rows, self.point_widths, dim=1))
        if self.gacm_norm is not None:
            gate = torch.sigmoid(rgb[4])
            fused = rgb[2] * gate + rgb[1] * (1 - gate)
            to_3d = rgb[3] + F.gelu(self.gacm_norm(fused))
        else:
            to_3d = _apply(self.rgb_rest, rgb[1])
        to_rgb = _apply(self.point_rest, points[1])
        out = [_distance(rgb[0], to_rgb), _distance(points[0], to_3d)]
        if self.has_text:
            assert class_index is not None
            anchor = torch.index_select(self.anchors, 0, class_index)
            out.append((anchor - _unit(self.rgb_text(F.gelu(rgb[-1])))).norm(dim=1))
            out.append((anchor - _unit(self.point_text(F.gelu(points[-1])))).norm(dim=1))
        return tuple(out)


def _rest(mapper: Gacm | Cfm | Mlp) -> nn.ModuleList:
    """The linear layers of a mapper that stay per pixel; GACM has none."""
    if isinstance(mapper, Gacm):
        return nn.ModuleList()
    return nn.ModuleList([mapper.fc2, mapper.fc3] if isinstance(mapper, Cfm) else [mapper.fc2])


def _apply(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(F.gelu(x))
    return x


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Norm of the difference of the normalised vectors; never ``sqrt(2 - 2 cos)`` (METHOD.md section 7)."""
    return (_unit(x) - _unit(y)).norm(dim=1)
