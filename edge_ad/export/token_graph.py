"""``tokens.onnx`` as a torch module: every linear product that METHOD.md section 7 moves from pixels to tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edge_ad.export.group_graph import linear
from edge_ad.export.turned import reading, turn_of
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.mappers import Gacm


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
        self._turns = rgb, points = turn_of(m.points_to_rgb), turn_of(m.rgb_to_3d)
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
        self.rgb_layers = nn.ModuleList(reading(layer, rgb) for layer in first)
        self.point_layers = nn.ModuleList([reading(m.points_to_rgb.fc1, points)])
        self.rgb_text = self.point_text = None
        if m.rgb_to_text is not None and m.points_to_text is not None:
            if self.by_class:  # these read raw tokens, through the shared standardisation
                self.rgb_text = after(m.rgb_to_text.fc1, detector.rgb_weight, detector.rgb_offset)
                self.point_text = after(m.points_to_text.fc1, detector.point_weight, detector.point_offset)
            else:
                self.rgb_text = reading(m.rgb_to_text.fc1, rgb)
                self.point_text = reading(m.points_to_text.fc1, points)

    def read_rgb(self, layer: nn.Linear) -> nn.Linear:
        """A layer for colour features, for turned ones."""
        return reading(layer, self._turns[0])

    def read_points(self, layer: nn.Linear) -> nn.Linear:
        """A layer for point features, for turned ones."""
        return reading(layer, self._turns[1])

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
