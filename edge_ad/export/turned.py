"""Last layers turned until their weight is triangular, and the layers that read what was turned.

A distance does not change when both sides are turned alike. So the last layer of an MLP is turned until its weight is
zero left of its diagonal (QR), and its target is turned likewise: on the tokens, or, for an anchor, once and for all.
Outputs beyond the rank of the layer (hidden units + 1) vanish and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_ad.export.group_graph import linear
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Cfm, Gacm, Mlp


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


def last_linear(mapper: Gacm | Cfm | Mlp | None) -> nn.Linear | None:
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


def turn_of(mapper: Gacm | Cfm | Mlp) -> Tensor | None:
    """The turn of a mapper's last layer, which its target takes too; None without one."""
    last = last_linear(mapper)
    return None if last is None else turned(last).turn


def reading(layer: nn.Linear, turn: Tensor | None) -> nn.Linear:
    """``layer`` for inputs that were turned: W x = (W Q) (Q^T x)."""
    if turn is None:
        return layer
    weight = layer.weight.detach().double() @ turn
    return linear(torch.cat([weight, layer.bias.detach().double()[:, None]], dim=1))
