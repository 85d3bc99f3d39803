"""The compiled loops of :mod:`edge_ad.runtime.geometry`, one pass each; imported when the first frame comes."""

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


@compiled()
def known(given: Any, xyz: Any) -> None:
    """Copy a cloud, zeros where a coordinate is not finite or the depth is not positive.

    given, xyz : (N, 3) float32; ``xyz`` is written.
    """
    for i in range(given.shape[0]):
        x, y, z = given[i, 0], given[i, 1], given[i, 2]
        sound = np.isfinite(x) and np.isfinite(y) and np.isfinite(z) and z > 0
        xyz[i, 0] = x if sound else np.float32(0)
        xyz[i, 1] = y if sound else np.float32(0)
        xyz[i, 2] = z if sound else np.float32(0)


@compiled()
def heights(xyz: Any, plane: Any, out: Any) -> None:
    """Signed distance of (N, 3) float32 points to a plane: (4,) float32 normal and offset. out : (N,), written."""
    for i in range(xyz.shape[0]):
        out[i] = ((xyz[i, 0] * plane[0] + xyz[i, 1] * plane[1]) + xyz[i, 2] * plane[2]) + plane[3]
