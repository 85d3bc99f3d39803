"""Features relative to their class (``mappers.condition = "class"``).

One model serves all classes. What varies on good parts, and by how much, differs between them all the same: a scatter
that is ordinary on a printed cap is a defect on a machined plate. So the class's own affine map follows the shared
standardisation before the two modalities are compared, and constant channels carry a code of the class, by which the
shared mappers tell the classes apart. The text features stay as they were: they find the class. Not part of the paper.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edge_ad.frame import F32
from edge_ad.presets import CODE


def class_code(index: int) -> F32:
    """(CODE,) float32 unit vector of the class with this row of the anchors; the same in every model."""
    code = np.random.default_rng([index, CODE]).standard_normal(CODE)
    return np.asarray(code / np.linalg.norm(code), dtype=np.float32)


class Condition(nn.Module):
    """Shared features (..., F) of one class -> that class's features (..., F): ``x W_c^T + o_c``.

    Buffers
    -------
    weight : (C, F, F). offset : (C, F).
    """

    weight: Tensor
    offset: Tensor

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(features).repeat(classes, 1, 1))
        self.register_buffer("offset", torch.zeros(classes, features))

    def forward(self, x: Tensor, class_index: int) -> Tensor:
        """``class_index`` : row of the anchors."""
        out: Tensor = x @ self.weight[class_index].T + self.offset[class_index]
        return out


class Conditions(nn.Module):
    """Both modalities' conditions: shared features (..., D) of one class -> the class's."""

    def __init__(self, classes: int, feature_rgb: int, feature_points: int) -> None:
        super().__init__()
        self.rgb = Condition(classes, feature_rgb)
        self.points = Condition(classes, feature_points)

    def forward(self, rgb: Tensor, points: Tensor, class_index: int) -> tuple[Tensor, Tensor]:
        """``class_index`` : row of the anchors."""
        return self.rgb(rgb, class_index), self.points(points, class_index)
