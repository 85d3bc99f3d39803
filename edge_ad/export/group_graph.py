"""The mini-PointNet as it is exported: (G, K, 3) -> (G, dim), restructured exactly (METHOD.md section 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.models.pointmae import MiniPointNet

HELD = 2**19
"""Activations of the widest layer that are held at a time (2 MB, a second-level cache): more groups run in parts."""
PARTS = 8
"""At most: each part is nodes of its own in the graph."""


class GroupGraph(nn.Module):
    """:class:`edge_ad.models.pointmae.MiniPointNet` with fewer products, ``(B, G, K, 3) -> (B, G, dim)`` for B = 1.

    BatchNorm is folded into the layer before it. The second stage reads the group's maximum beside each point's own
    feature: its half for the maximum runs once a group, not once a point. The own feature is itself a linear layer of
    the first hidden units, so the other half is composed with that layer and reads those instead. Layers keep the names
    of the network.
    """

    def __init__(self, net: MiniPointNet) -> None:
        super().__init__()
        first = _folded(net.first_conv[0], net.first_conv[1])
        local = _folded(net.first_conv[3])
        joined = _folded(net.second_conv[0], net.second_conv[1])
        width = len(local)
        own = joined[:, width:-1] @ local  # (second, hidden + 1)
        own[:, -1] += joined[:, -1]
        self.first_conv = nn.ModuleDict({"0": linear(first), "3": linear(local)})
        self.second_conv = nn.ModuleDict({"0": linear(own), "3": linear(_folded(net.second_conv[3]))})
        self.overall = linear(joined[:, :width], bias=False)

    def forward(self, groups: Tensor) -> Tensor:
        points = groups[0]
        width = points.shape[1] * self.overall.out_features
        size = max(1, HELD // width, -(-points.shape[0] // PARTS))
        if size >= points.shape[0]:
            return self._part(points)[None]
        return torch.cat([self._part(part) for part in torch.split(points, size)])[None]

    def _part(self, groups: Tensor) -> Tensor:
        g, k, _ = groups.shape
        first = F.relu(self.first_conv["0"](groups.reshape(g * k, 3)))
        most = self.first_conv["3"](first).reshape(g, k, -1).amax(dim=1)
        second = F.relu(self.second_conv["0"](first).reshape(g, k, -1) + self.overall(most)[:, None])
        tokens: Tensor = self.second_conv["3"](second.reshape(g * k, -1)).reshape(g, k, -1).amax(dim=1)
        return tokens


def linear(affine: Tensor, bias: bool = True) -> nn.Linear:
    """An affine map (out, in + 1), the offset as its last column, as a float32 layer; without ``bias`` (out, in)."""
    layer = nn.Linear(affine.shape[1] - bias, affine.shape[0], bias=bias).requires_grad_(False)
    layer.weight.copy_(affine[:, :-1] if bias else affine)
    if bias:
        layer.bias.copy_(affine[:, -1])
    return layer


def _folded(conv: nn.Module, norm: nn.Module | None = None) -> Tensor:
    """A convolution of width 1, and the BatchNorm after it, as an affine map: (out, in + 1) float64."""
    assert isinstance(conv, nn.Conv1d) and conv.bias is not None
    affine = torch.cat([conv.weight[:, :, 0], conv.bias[:, None]], dim=1).detach().double()
    if norm is None:
        return affine
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    affine = affine * scale[:, None]
    affine[:, -1] += norm.bias.detach().double() - norm.running_mean.double() * scale
    return affine
