"""The trained mappers between the feature spaces (METHOD section 3, paper III-A)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_ad.presets import Preset


class Gacm(nn.Module):
    """Geometry-Aware Cross-Modal Mapper, eq. 1-4: (..., inputs) -> (..., outputs), a feature at a time.

    R is linear, since the sizes differ; W_g has no bias, as eq. 3 writes it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.phi_s = nn.Linear(inputs, outputs)
        self.phi_g = nn.Linear(inputs, outputs)
        self.w_g = nn.Linear(outputs, outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)
        self.residual = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        f_sem = self.phi_s(x)
        f_geo = self.phi_g(x)
        gate = torch.sigmoid(self.w_g(f_geo))
        f_fused = f_geo * gate + f_sem * (1 - gate)
        out: Tensor = self.residual(x) + F.gelu(self.norm(f_fused))
        return out


class Mlp(nn.Module):
    """Two linear layers with one (exact) GELU between; ``hidden=0`` takes (inputs + outputs) // 2."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or (inputs + outputs) // 2
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Cfm(nn.Module):
    """CFM's mapper: three linear layers with GELU between; ``hidden=0`` takes (inputs + outputs) // 2."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or (inputs + outputs) // 2
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x)))))
        return out


class Mappers(nn.Module):
    """All mappers of a preset, by name.

    ``rgb_to_3d`` (GACM), ``points_to_rgb``, ``rgb_to_text`` and ``points_to_text`` (MLPs). With ``kind = "cfm"`` only
    the first two, as three-layer MLPs; then the other two are None.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        rgb, points, text = preset.feature_rgb, preset.feature_points, preset.text.dim
        hidden = preset.mappers.hidden
        self.rgb_to_3d: Gacm | Cfm
        self.points_to_rgb: Mlp | Cfm
        self.rgb_to_text: Mlp | None
        self.points_to_text: Mlp | None
        if preset.mappers.kind == "cfm":
            self.rgb_to_3d = Cfm(rgb, points, hidden)
            self.points_to_rgb = Cfm(points, rgb, hidden)
            self.rgb_to_text = None
            self.points_to_text = None
        else:
            self.rgb_to_3d = Gacm(rgb, points)
            self.points_to_rgb = Mlp(points, rgb, hidden)
            self.rgb_to_text = Mlp(rgb, text, hidden)
            self.points_to_text = Mlp(points, text, hidden)

    @property
    def has_text(self) -> bool:
        """Whether the mappers into the text space exist."""
        return self.rgb_to_text is not None
