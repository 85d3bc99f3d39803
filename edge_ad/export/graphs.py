"""The four graphs of a bundle as torch modules: the model of ``edge_ad.models``, restructured exactly.

METHOD.md section 7: a linear layer commutes with an interpolation whose weights sum to 1. So every linear layer that
the reference applies to an interpolated feature runs here on the tokens (:class:`TokenGraph`), and a pixel only reads a
weighted sum of table rows (:class:`ScoreGraph`). Equal to the reference in real arithmetic.

A distance does not change when both sides are turned alike. So the last layer of an MLP is turned until its weight is
zero left of its diagonal (QR), and its target is turned likewise: on the tokens, or, for an anchor, once and for all.
Outputs beyond the rank of the layer (hidden units + 1) vanish and are left out.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.export.group_graph import GroupGraph, linear
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Cfm, Gacm, Mlp
from edge_ad.models.pointmae import MiniPointNet


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
        # A copy: the detector itself stays literal.
        self.encoder = deepcopy(detector.point_encoder)
        net = detector.point_encoder.encoder
        assert isinstance(net, MiniPointNet)
        self.encoder.encoder = GroupGraph(net)

    def forward(self, groups: Tensor, centers: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(groups, centers)[0]
        return tokens


@dataclass(frozen=True)
class Turned:
    """A linear layer ``W h + b`` turned by the orthogonal ``turn``: ``turn^T (W h + b)``, in float64.

    turn : (out, out). weight : (r, hidden), zero left of its diagonal. bias : (r,). r = min(out, hidden + 1): the
    outputs from r on are zero for every h.
    """

    turn: Tensor
    weight: Tensor
    bias: Tensor


def turned(layer: nn.Linear) -> Turned:
    """QR of a layer's weight and bias."""
    joined = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().double()
    turn, upper = torch.linalg.qr(joined, mode="complete")
    upper = upper[: min(joined.shape)].triu()
    return Turned(turn, upper[:, :-1].contiguous(), upper[:, -1].contiguous())


def _lastlinear(mapper: Gacm | Cfm | Mlp | None) -> nn.Linear | None:
    """The last linear layer of a mapper, which stays per pixel; GACM has none."""
    if mapper is None or isinstance(mapper, Gacm):
        return None
    return mapper.fc3 if isinstance(mapper, Cfm) else mapper.fc2


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

    With ``mappers.condition = "class"`` the index of the class (1,) int64 is a third input: it picks the class's affine
    map, in which standardisation, condition and turn are one. The text columns do not depend on it.

    Columns: the standardised feature itself, turned as the layer that maps onto it (:class:`Turned`), then the first
    layers of the mappers that read it (:func:`column_widths`). The turn is part of the standardisation, and is undone
    in the weights of the layers that read it: it costs nothing.
    """

    rgb_weight: Tensor
    rgb_offset: Tensor
    point_weight: Tensor
    point_offset: Tensor

    def __init__(self, detector: ReferenceDetector) -> None:
        super().__init__()
        m = detector.mappers
        self._turns = rgb, points = _turn_of(m.points_to_rgb), _turn_of(m.rgb_to_3d)
        self.by_class = detector.conditions is not None
        for side, turn in (("rgb", rgb), ("point", points)):
            weight, offset = feature_map(detector, side)
            self.register_buffer(f"{side}_weight", (weight if turn is None else turn.T @ weight).float())
            self.register_buffer(f"{side}_offset", (offset if turn is None else offset @ turn).float())
        if isinstance(m.rgb_to_3d, Gacm):
            first = [m.rgb_to_3d.phi_s, m.rgb_to_3d.phi_g, m.rgb_to_3d.residual]
            self.gate: nn.Linear | None = m.rgb_to_3d.w_g
        else:
            first, self.gate = [m.rgb_to_3d.fc1], None
        self.rgb_layers = nn.ModuleList(_reading(layer, rgb) for layer in first)
        self.point_layers = nn.ModuleList([_reading(m.points_to_rgb.fc1, points)])
        self.rgb_text = self.point_text = None
        if m.rgb_to_text is not None and m.points_to_text is not None:
            if self.by_class:  # these read raw tokens, through the shared standardisation
                self.rgb_text = after(m.rgb_to_text.fc1, detector.rgb_weight, detector.rgb_offset)
                self.point_text = after(m.points_to_text.fc1, detector.point_weight, detector.point_offset)
            else:
                self.rgb_text = _reading(m.rgb_to_text.fc1, rgb)
                self.point_text = _reading(m.points_to_text.fc1, points)

    def read_rgb(self, layer: nn.Linear) -> nn.Linear:
        """A layer for colour features, for turned ones."""
        return _reading(layer, self._turns[0])

    def read_points(self, layer: nn.Linear) -> nn.Linear:
        """A layer for point features, for turned ones."""
        return _reading(layer, self._turns[1])

    def features(self, rgb_tokens: Tensor, point_tokens: Tensor, class_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """The features that the cross mappers read and are compared with, turned."""
        if not self.by_class:
            x = _affine(rgb_tokens, self.rgb_weight, self.rgb_offset)
            return x, _affine(point_tokens, self.point_weight, self.point_offset)
        assert class_index is not None
        x = rgb_tokens @ _chosen(self.rgb_weight, class_index).T + _chosen(self.rgb_offset, class_index)
        y = point_tokens @ _chosen(self.point_weight, class_index).T + _chosen(self.point_offset, class_index)
        return x, y

    def forward(
        self, rgb_tokens: Tensor, point_tokens: Tensor, class_index: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return self.products(rgb_tokens, point_tokens, *self.features(rgb_tokens, point_tokens, class_index))

    def products(self, rgb_tokens: Tensor, point_tokens: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Raw tokens and turned features -> both tables."""
        rgb = [x] + [layer(x) for layer in self.rgb_layers]
        if self.gate is not None:
            rgb.append(self.gate(rgb[2]))  # W_g F_geo (eq. 3)
        points = [y] + [layer(y) for layer in self.point_layers]
        if self.rgb_text is not None and self.point_text is not None:
            rgb.append(self.rgb_text(rgb_tokens if self.by_class else x))
            points.append(self.point_text(point_tokens if self.by_class else y))
        return torch.cat(rgb, dim=1), torch.cat(points, dim=1)


def feature_map(detector: ReferenceDetector, side: str) -> tuple[Tensor, Tensor]:
    """Raw tokens -> features, ``side`` "rgb" or "point", in float64: weight (D', D) and offset (D',).

    With conditions one a class: (C, D', D) and (C, D').
    """
    weight, offset = getattr(detector, f"{side}_weight").double(), getattr(detector, f"{side}_offset").double()
    if detector.conditions is None:
        return weight, offset
    own = detector.conditions.rgb if side == "rgb" else detector.conditions.points
    turn = own.weight.double()
    return turn @ weight, turn @ offset + own.offset.double()


def after(layer: nn.Linear, weight: Tensor, offset: Tensor) -> nn.Linear:
    """``layer`` composed with the affine map before it, in float64."""
    own = layer.weight.detach().double()
    bias = own @ offset.double() + layer.bias.detach().double()
    return linear(torch.cat([own @ weight.double(), bias[:, None]], dim=1))


def _chosen(values: Tensor, class_index: Tensor) -> Tensor:
    return torch.index_select(values, 0, class_index)[0]


def _affine(tokens: Tensor, weight: Tensor, offset: Tensor) -> Tensor:
    """Standardisation and turn of tokens, left out where neither changes them."""
    if weight.shape[0] == weight.shape[1] and not offset.any() and torch.equal(weight, torch.eye(len(weight))):
        return tokens
    return tokens @ weight.T + offset


def _turn_of(mapper: Gacm | Cfm | Mlp) -> Tensor | None:
    """The turn of a mapper's last layer, which its target takes too; None without one."""
    last = _lastlinear(mapper)
    return None if last is None else turned(last).turn


def _reading(layer: nn.Linear, turn: Tensor | None) -> nn.Linear:
    """``layer`` for inputs that were turned: W x = (W Q) (Q^T x)."""
    if turn is None:
        return layer
    weight = layer.weight.detach().double() @ turn
    return linear(torch.cat([weight, layer.bias.detach().double()[:, None]], dim=1))


class ScoreGraph(nn.Module):
    """Interpolated table rows of n pixels, class index (1,) int64 -> the distances of eq. 12-14, each (n,).

    ``rgb``, ``3d`` and, with text, ``text_rgb`` and ``text_3d``, whose product is eq. 14. The anchors are a constant.
    Kernels that do this work read its constants by name.
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
    """The linear layers of a mapper that stay per pixel, the last one turned as its target; GACM has none."""
    last = _lastlinear(mapper)
    if last is None:
        return nn.ModuleList()
    t = turned(last)
    affine = torch.cat([t.weight, t.bias[:, None]], dim=1)
    whole = linear(F.pad(affine, (0, 0, 0, last.out_features - len(affine))))
    return nn.ModuleList([mapper.fc2, whole] if isinstance(mapper, Cfm) else [whole])


def _apply(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(F.gelu(x))
    return x


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Norm of the difference of the normalised vectors; never ``sqrt(2 - 2 cos)`` (METHOD.md section 7)."""
    return (_unit(x) - _unit(y)).norm(dim=1)


def score_arrays(detector: ReferenceDetector) -> dict[str, NDArray[Any]]:
    """The weights of the score graph as arrays, for the compiled stage of the runtime (``onnx/score.npz``).

    ``rgb_widths``, ``point_widths`` : int64, :func:`column_widths`. ``gacm.weight|bias|eps`` : the LayerNorm.
    ``<term>.weight`` (r, hidden) and ``<term>.bias`` (r,) : the turned last layer of each MLP; ``<term>.middle`` and
    ``<term>.middle_bias`` : CFM's middle layer. ``<term>.anchors`` (C, r) : the anchors, turned likewise, and
    ``<term>.anchor_rest`` (C,) the squared length of what lies beyond the layer's rank. Terms are the graph's outputs.
    """
    m = detector.mappers
    widths = column_widths(detector)
    out: dict[str, NDArray[Any]] = {
        "rgb_widths": np.array(widths[0], dtype=np.int64),
        "point_widths": np.array(widths[1], dtype=np.int64),
    }
    if isinstance(m.rgb_to_3d, Gacm):
        norm = m.rgb_to_3d.norm
        out |= {"gacm.weight": _array(norm.weight), "gacm.bias": _array(norm.bias)}
        out["gacm.eps"] = np.array(norm.eps, dtype=np.float32)
    anchors = _unit(detector.anchors.double())
    branches = (
        ("rgb", m.points_to_rgb),
        ("3d", m.rgb_to_3d),
        ("text_rgb", m.rgb_to_text),
        ("text_3d", m.points_to_text),
    )
    for term, mapper in branches:
        last = _lastlinear(mapper)
        if last is None:
            continue
        t = turned(last)
        out[f"{term}.weight"], out[f"{term}.bias"] = _array(t.weight), _array(t.bias)
        if isinstance(mapper, Cfm):
            out |= {f"{term}.middle": _array(mapper.fc2.weight), f"{term}.middle_bias": _array(mapper.fc2.bias)}
        if term.startswith("text"):
            moved, rank = anchors @ t.turn, len(t.bias)
            out[f"{term}.anchors"] = _array(moved[:, :rank])
            out[f"{term}.anchor_rest"] = _array((moved[:, rank:] ** 2).sum(dim=1))
    return out


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().numpy(), dtype=np.float32)
