"""The four graphs of a bundle as torch modules: the model of ``edge_ad.models``, restructured exactly.

METHOD.md section 7: a linear layer commutes with an interpolation whose weights sum to 1. So every linear layer that
the reference applies to an interpolated feature runs on the tokens (:mod:`edge_ad.export.token_graph`), and a pixel
only reads a weighted sum of table rows (:class:`ScoreGraph`). Equal to the reference in real arithmetic.

A distance does not change when both sides are turned alike, which :mod:`edge_ad.export.turned` makes use of.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_ad.export.group_graph import GroupGraph, linear
from edge_ad.export.turned import column_widths, last_linear, turned
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
    last = last_linear(mapper)
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
        last = last_linear(mapper)
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
