"""NumPy references of those kernels that no function of the runtime is one for: float32, every operation rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, U8, Bool
from edge_ad.runtime.frame_check import MAX_SPLAT
from edge_ad.runtime.kernels.launch import Buckets

FOREGROUND, LOST, HAS_DEPTH, USABLE = 1, 2, 4, 8
I32 = NDArray[np.int32]


def pixel_flags(
    xyz: F32,
    *,
    roi: Bool | None = None,
    expected: Bool | None = None,
    plane: F32 | None = None,
    plane_distance: float = 0.0,
    max_depth: float = 0.0,
) -> U8:
    """What a pixel of the camera's grid is (METHOD.md section 1): a sum of bits, as depth.cu writes it.

    Parameters
    ----------
    xyz : (H, W, 3) float32 metres, 0 without depth. roi, expected : (H, W) bool or None.
    plane : (4,) float32 normal and offset: foreground lies more than ``plane_distance`` above it. max_depth : 0: none.
    """
    z = xyz[..., 2]
    inside = np.ones(z.shape, bool) if roi is None else roi
    usable = (z > 0) & inside
    if max_depth > 0:
        usable &= z <= np.float32(max_depth)
    above = usable
    if plane is not None:
        n = plane.astype(np.float32)
        height = ((xyz[..., 0] * n[0] + xyz[..., 1] * n[1]) + z * n[2]) + n[3]
        above = usable & (height > np.float32(plane_distance))
    lost = np.zeros(z.shape, bool) if expected is None else expected & ~(z > 0) & inside
    flags = FOREGROUND * above + LOST * lost + HAS_DEPTH * (z > 0) + USABLE * usable
    return np.asarray(flags, dtype=np.uint8)


def order_points(points: F32, rank: I32 | None, buckets: Buckets, size: int = 0, stride: int = 1) -> tuple[I32, F32]:
    """Which point lies in which slot, (buckets, room) int32, -1: none; boxes (buckets, 6) float32, low, high corner.

    ``rank`` : (size, size), the point of a pixel, for tiles; None: consecutive points.
    """
    if rank is None:
        flat = np.full(buckets.slots, -1, np.int32)
        flat[: len(points)] = np.arange(len(points))
        index = flat.reshape(buckets.count, buckets.room)
    else:
        side = buckets.across * buckets.tile
        padded = np.full((side, side), -1, np.int32)
        lattice = rank.reshape(size, size)[::stride, ::stride]
        padded[: lattice.shape[0], : lattice.shape[1]] = lattice
        tiles = padded.reshape(buckets.across, buckets.tile, buckets.across, buckets.tile)
        index = tiles.transpose(0, 2, 1, 3).reshape(buckets.count, buckets.room)
    boxes = np.empty((buckets.count, 6), np.float32)
    for b, row in enumerate(index):
        inside = points[row[row >= 0]]
        boxes[b, :3] = inside.min(axis=0) if len(inside) else np.inf
        boxes[b, 3:] = inside.max(axis=0) if len(inside) else -np.inf
    return index, boxes


def register_depth(
    depth: NDArray[Any], scale: float, rays: tuple[F32, F32], camera: F32, shape: tuple[int, int]
) -> tuple[NDArray[Any], int]:
    """Depth carried to a colour grid as the kernel does it; the rule of ``edge_ad.runtime.registration``.

    Parameters
    ----------
    depth : (N,) uint16 or float32. rays : two (3, N) float32, through the corners of the depth pixels.
    camera : (19,) float32 translation, fx fy ppx ppy, 12 distortion coefficients. shape : (H, W) of the colour image.

    Returns
    -------
    (H, W) of depth's dtype, 0 where nothing is seen; and the widest side of a square that was left out, else 0.
    """
    f32 = np.float32
    whole = np.issubdtype(depth.dtype, np.integer)
    z = depth.astype(f32) * f32(scale)
    seen = depth > 0
    corners, depths = [], []
    with np.errstate(all="ignore"):
        for ray in rays:
            w = ray[2] * z + camera[2]
            seen &= (w > 0) & (w < f32(1e6))
            x, y = (ray[0] * z + camera[0]) / w, (ray[1] * z + camera[1]) / w
            k = camera[7:]
            if k.any():
                r2 = x * x + y * y
                radial = (1 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))) / (1 + r2 * (k[5] + r2 * (k[6] + r2 * k[7])))
                moved = x * radial + 2 * k[2] * x * y + k[3] * (r2 + 2 * x * x) + k[8] * r2 + k[9] * r2 * r2
                y = y * radial + k[2] * (r2 + 2 * y * y) + 2 * k[3] * x * y + k[10] * r2 + k[11] * r2 * r2
                x = moved
            for value, focal, centre, size in ((x, 3, 5, shape[1]), (y, 4, 6, shape[0])):
                u = value * camera[focal] + camera[centre]
                seen &= (u >= f32(-0.5)) & (u < f32(size) - f32(0.5))
                at = np.floor(np.where(seen, u, 0).astype(np.float64) + 0.5).astype(np.int64)
                seen &= (at >= 0) & (at < size)
                corners.append(at)
            depths.append(w)
        units = (f32(0.5) * depths[0] + f32(0.5) * depths[1]) / f32(scale)
    if whole:
        units = np.minimum(np.where(seen, units, 0) + f32(0.5), f32(np.iinfo(depth.dtype).max)).astype(np.int64)
    x0, y0, x1, y1 = corners
    side = np.maximum(x1 - x0, y1 - y0) + 1
    widest = int(side[seen & (side > MAX_SPLAT)].max(initial=0))
    out = np.full(shape, np.inf, np.float64)
    for n in np.flatnonzero(seen & (side <= MAX_SPLAT) & (units > 0)):
        box = out[y0[n] : y1[n] + 1, x0[n] : x1[n] + 1]
        np.minimum(box, units[n], out=box)
    out[np.isinf(out)] = 0
    return out.astype(depth.dtype), widest
