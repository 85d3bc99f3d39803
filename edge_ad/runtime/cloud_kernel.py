"""The compiled loop of :func:`edge_ad.runtime.geometry.depth_to_xyz`; imported when the first 16 bit image comes."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_ad.runtime.jit import compiled


@compiled()
def cloud(depth: Any, scale: Any, x: Any, y: Any, xyz: Any) -> None:
    """Metres of every pixel in one pass, each product rounded once, as NumPy does.

    depth : (N,) uint16. scale : float32 metres a unit. x, y : (N,) float32, x / z and y / z. xyz : (N, 3) float32,
    written.
    """
    for i in range(depth.shape[0]):
        z = scale * np.float32(depth[i])
        xyz[i, 0] = x[i] * z
        xyz[i, 1] = y[i] * z
        xyz[i, 2] = z
