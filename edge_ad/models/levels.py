"""How far apart the modalities of a good part are to be expected at a token (``fusion.level = "predicted"``).

The distances of eq. 12 and 13 are larger at rims, steps and print than on plain surfaces, on good parts as well. A
small network predicts the expected distance from the *other* modality's features (a defect is not to explain itself
away): Psi_rgb from the point features, Psi_3d from the colour features. Each distance is divided by it, which makes
both relative: 1 is what a good part shows there. Not part of the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.presets import Preset


class Level(nn.Module):
    """Standardised features (N, D) -> expected distances (N,), positive.

    Two linear layers with a GELU between give the logarithm, which is kept inside the range that it had on the training
    pixels (``limits`` (2,): low and high), so that a feature never seen cannot ask for an absurd level.
    """

    limits: Tensor

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, 1)
        self.register_buffer("limits", torch.tensor([-20.0, 20.0]))

    def logarithm(self, x: Tensor) -> Tensor:
        """(N, D) -> (N,), without the limits."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out.squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        return limited(self.logarithm(x), self.limits)


def limited(logarithm: Tensor, limits: Tensor) -> Tensor:
    """exp of a logarithm kept inside ``limits`` (2,)."""
    return torch.minimum(torch.maximum(logarithm, limits[0]), limits[1]).exp()


class Levels(nn.Module):
    """``of_3d``: expected Psi_3d from colour features. ``of_rgb``: expected Psi_rgb from point features."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.of_3d = Level(preset.feature_rgb, preset.fusion.level_hidden)
        self.of_rgb = Level(preset.feature_points, preset.fusion.level_hidden)
