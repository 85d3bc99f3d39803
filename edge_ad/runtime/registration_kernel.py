"""The compiled loop of :mod:`edge_ad.runtime.registration`; imported when the first depth image is registered."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_ad.runtime.jit import compiled


@compiled()
def splat(
    depth: Any, scale: Any, rays0: Any, rays1: Any, translation: Any, camera: Any, k: Any, top: Any, out: Any
) -> int:
    """Carry every depth pixel's square to the colour grid; the nearest wins. Returns the widest side met, pixels.

    depth : (N,) any dtype. rays0, rays1 : (3, N) float32, the corners' rays in the colour camera's axes.
    Every operation is rounded to float32 as written, as on a GPU (kernels/depth.cu).
    camera : (4,) float32 fx, fy, ppx, ppy. k : (12,) float32 OpenCV's distortion. top : largest value of ``out``.
    out : (H, W) zeros of depth's dtype, written. A square of more than 16 pixels a side is left out.
    """
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)  # a plain number would widen the sum to float64
    height, width = out.shape
    widest = 0
    bare = True
    for i in range(k.shape[0]):
        bare = bare and k[i] == 0
    corner = [0, 0, 0, 0]
    for n in range(depth.shape[0]):
        if not depth[n] > 0:
            continue
        z = np.float32(depth[n]) * scale
        seen = True
        metres = np.float32(0)
        for side in range(2):
            rays = rays0 if side == 0 else rays1
            w = rays[2, n] * z + translation[2]
            if not (w > 0 and w < 1e6):
                seen = False
                break
            x = (rays[0, n] * z + translation[0]) / w
            y = (rays[1, n] * z + translation[1]) / w
            if not bare:
                r2 = x * x + y * y
                radial = (one + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (one + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
                moved = x * radial + two * k[2] * x * y + k[3] * (r2 + two * x * x) + k[8] * r2 + k[9] * r2 * r2
                y = y * radial + k[2] * (r2 + two * y * y) + two * k[3] * x * y + k[10] * r2 + k[11] * r2 * r2
                x = moved
            # Widened here, so that adding the half does not round.
            u = np.float64(x * camera[0] + camera[2]) + 0.5
            v = np.float64(y * camera[1] + camera[3]) + 0.5
            if not (u >= 0 and v >= 0 and u < width and v < height):
                seen = False
                break
            corner[2 * side], corner[2 * side + 1] = int(u), int(v)
            metres += w * half
        if not seen:
            continue
        units = metres / scale
        if top > 0:  # whole numbers
            units = min(units + half, top)
        value = out.dtype.type(units)
        widest = max(widest, corner[2] - corner[0] + 1, corner[3] - corner[1] + 1)
        if value == 0 or corner[2] - corner[0] >= 16 or corner[3] - corner[1] >= 16:
            continue
        for row in range(corner[1], corner[3] + 1):
            for column in range(corner[0], corner[2] + 1):
                if out[row, column] == 0 or value < out[row, column]:
                    out[row, column] = value
    return widest
