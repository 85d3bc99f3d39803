"""Compiled kernels of the point operations. They look at blocks of neighbouring points and leave out, exactly, those
blocks that cannot matter.

Points are put in Morton order and cut into blocks of :data:`BLOCK`, each with its bounding box. The squared distance to
a box bounds that to every point in it. Bounds are compared with a margin above the rounding of float32, so that what is
left out could not have changed the result; what is looked at follows the rule of :mod:`edge_ad.runtime.pointops`: every
operation rounded on its own, ties to the lowest index of the caller's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, I64
from edge_ad.runtime.jit import ROUNDED, compiled

BLOCK = 64
f32 = np.float32
ZERO = f32(0)
LESS, MORE, TINY = f32(1 - 1e-5), f32(1 + 1e-5), f32(1e-37)
"""Margin of the bounds: five roundings of 2**-24 each stay far below 1e-5; TINY is for what underflows."""


@dataclass(frozen=True)
class Blocks:
    """Points in blocks of neighbours.

    order : (N,) int32, the caller's number of each point. xyz : (3, N) float32 in that order.
    low, high : (3, B) float32, the corners of each block's box.
    """

    order: NDArray[np.int32]
    xyz: F32
    low: F32
    high: F32


def arrange(points: F32) -> Blocks:
    """(N, 3) finite float32, N >= 1, in blocks of neighbours."""
    order = np.argsort(_morton(points)).astype(np.int32)
    xyz = np.ascontiguousarray(points[order].T)
    blocks = -(-len(points) // BLOCK)
    low, high = np.empty((3, blocks), np.float32), np.empty((3, blocks), np.float32)
    _boxes(xyz, low, high)
    return Blocks(order, xyz, low, high)


@compiled()
def _spread(v: int) -> int:
    """10 bits, two zeros between each and the next."""
    v = (v | (v << 16)) & 0x030000FF
    v = (v | (v << 8)) & 0x0300F00F
    v = (v | (v << 4)) & 0x030C30C3
    return (v | (v << 2)) & 0x09249249


@compiled()
def _morton(points: F32) -> NDArray[np.int32]:
    """(N, 3) -> (N,) int32: the interleaved bits of the coordinates, each in 1024 steps of the largest extent."""
    n = len(points)
    low, high = np.empty(3), np.empty(3)
    for d in range(3):
        low[d] = high[d] = points[0, d]
    for i in range(n):
        for d in range(3):
            low[d], high[d] = min(low[d], points[i, d]), max(high[d], points[i, d])
    extent = max(high[0] - low[0], high[1] - low[1], high[2] - low[2])
    scale = 1023.0 / extent if extent > 0 else 0.0
    out = np.empty(n, np.int32)
    for i in range(n):
        x, y, z = ((points[i, 0] - low[0]) * scale, (points[i, 1] - low[1]) * scale, (points[i, 2] - low[2]) * scale)
        out[i] = _spread(int(x)) | (_spread(int(y)) << 1) | (_spread(int(z)) << 2)
    return out


@compiled()
def _boxes(xyz: F32, low: F32, high: F32) -> None:
    n = xyz.shape[1]
    for b in range(low.shape[1]):
        for d in range(3):
            lo = hi = xyz[d, b * BLOCK]
            for i in range(b * BLOCK, min(n, (b + 1) * BLOCK)):
                lo, hi = min(lo, xyz[d, i]), max(hi, xyz[d, i])
            low[d, b], high[d, b] = lo, hi


@compiled(**ROUNDED)
def _nearest_corner(x: np.float32, y: np.float32, z: np.float32, low: F32, high: F32, bound: F32) -> None:
    """``bound[b]``: squared distance of a point from each box, 0 inside."""
    lx, ly, lz, hx, hy, hz = low[0], low[1], low[2], high[0], high[1], high[2]
    for b in range(len(bound)):
        dx = max(lx[b] - x, x - hx[b], ZERO)
        dy = max(ly[b] - y, y - hy[b], ZERO)
        dz = max(lz[b] - z, z - hz[b], ZERO)
        bound[b] = (dx * dx + dy * dy) + dz * dz


@compiled(**ROUNDED)
def farthest(order: NDArray[np.int32], xyz: F32, low: F32, high: F32, first: int, chosen: I64) -> None:
    """Farthest point sampling: fills ``chosen`` (n,) int64 with the caller's numbers; ``first`` is a position."""
    n, blocks = xyz.shape[1], low.shape[1]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    near = np.full(n, np.inf, np.float32)
    bound, most, who = np.empty(blocks, np.float32), np.full(blocks, np.inf, np.float32), np.zeros(blocks, np.int32)
    where = np.empty(n, np.int32)
    for i in range(n):
        where[order[i]] = i
    last = first
    for turn in range(len(chosen)):
        chosen[turn] = order[last]
        x, y, z = xs[last], ys[last], zs[last]
        _nearest_corner(x, y, z, low, high, bound)
        for b in range(blocks):
            if bound[b] * LESS - TINY >= most[b] or most[b] == ZERO and turn > 0:
                continue  # none of its points comes nearer
            start, end = b * BLOCK, min(n, (b + 1) * BLOCK)
            part, px, py, pz = near[start:end], xs[start:end], ys[start:end], zs[start:end]
            peak = ZERO
            for i in range(end - start):
                dx, dy, dz = px[i] - x, py[i] - y, pz[i] - z
                d = (dx * dx + dy * dy) + dz * dz
                v = min(part[i], d)
                part[i] = v
                peak = max(peak, v)
            most[b] = peak
            numbers = order[start:end]
            lowest = np.int32(n)
            for i in range(end - start):
                lowest = min(lowest, numbers[i] if part[i] == peak else np.int32(n))
            who[b] = lowest
        peak = ZERO
        for b in range(blocks):
            peak = max(peak, most[b])
        lowest = np.int32(n)
        for b in range(blocks):
            lowest = min(lowest, who[b] if most[b] == peak else np.int32(n))
        last = where[lowest]


@compiled(**ROUNDED)
def nearest(order: NDArray[np.int32], xyz: F32, low: F32, high: F32, centers: F32, index: I64) -> None:
    """The k nearest points of every centre: fills ``index`` (G, k) int64 with the caller's numbers, nearest first."""
    n, blocks, k = xyz.shape[1], low.shape[1], index.shape[1]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    bound, d2 = np.empty(blocks, np.float32), np.empty(BLOCK, np.float32)
    best, number = np.empty(k, np.float32), np.empty(k, np.int32)
    for g in range(len(centers)):
        x, y, z = centers[g, 0], centers[g, 1], centers[g, 2]
        _nearest_corner(x, y, z, low, high, bound)
        seed = 0
        for b in range(blocks):
            if bound[b] < bound[seed]:
                seed = b
        held = 0
        for turn in range(blocks):
            # Outwards from the nearest block in Morton order: the limit falls early.
            b = seed + turn
            b = b - blocks if b >= blocks else b
            if held == k and bound[b] * LESS - TINY > best[k - 1]:
                continue
            start, end = b * BLOCK, min(n, (b + 1) * BLOCK)
            px, py, pz = xs[start:end], ys[start:end], zs[start:end]
            for i in range(end - start):
                dx, dy, dz = px[i] - x, py[i] - y, pz[i] - z
                d2[i] = (dx * dx + dy * dy) + dz * dz
            for i in range(end - start):
                d, who = d2[i], order[start + i]
                if held == k:
                    if d > best[k - 1] or (d == best[k - 1] and who > number[k - 1]):
                        continue
                    at = k - 1
                else:
                    at = held
                    held += 1
                while at > 0 and (best[at - 1] > d or (best[at - 1] == d and number[at - 1] > who)):
                    best[at], number[at] = best[at - 1], number[at - 1]
                    at -= 1
                best[at], number[at] = d, who
        for j in range(k):
            index[g, j] = number[j]


@compiled(**ROUNDED)
def _corners(cx: F32, cy: F32, cz: F32, low: F32, high: F32, b: int, bound: F32, farthest_corner: F32) -> None:
    """Squared distances of every centre from the nearest and from the farthest point of box ``b``."""
    lx, ly, lz, hx, hy, hz = low[0, b], low[1, b], low[2, b], high[0, b], high[1, b], high[2, b]
    for c in range(len(cx)):
        ax, bx, ay, by, az, bz = lx - cx[c], cx[c] - hx, ly - cy[c], cy[c] - hy, lz - cz[c], cz[c] - hz
        dx, dy, dz = max(ax, bx, ZERO), max(ay, by, ZERO), max(az, bz, ZERO)
        bound[c] = (dx * dx + dy * dy) + dz * dz
        ex, ey, ez = min(ax, bx), min(ay, by), min(az, bz)
        farthest_corner[c] = (ex * ex + ey * ey) + ez * ez


@compiled(**ROUNDED)
def three(order: NDArray[np.int32], xyz: F32, low: F32, high: F32, centers: F32, index: I64, d2: F32) -> None:
    """The three nearest centres of every point: fills ``index`` (N, 3) int64 and ``d2`` (N, 3) float32.

    centers : (3, G) float32. A block's candidates are the centres that are nearer to its box than the third nearest
    can be to any of its points; they are tried in the order of their numbers, so that ties go to the lowest.
    """
    n, blocks, count = xyz.shape[1], low.shape[1], centers.shape[1]
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    cx, cy, cz = centers[0], centers[1], centers[2]
    bound, outer = np.empty(count, np.float32), np.empty(count, np.float32)
    d0, d1, d3 = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    i0, i1, i3 = np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32), np.empty(BLOCK, np.int32)
    infinite = f32(np.inf)
    for b in range(blocks):
        _corners(cx, cy, cz, low, high, b, bound, outer)
        u0 = u1 = u2 = infinite
        for c in range(count):
            v = outer[c]
            if v < u2:
                if v < u1:
                    u2 = u1
                    if v < u0:
                        u1, u0 = u0, v
                    else:
                        u1 = v
                else:
                    u2 = v
        limit = u2 * MORE + TINY
        start, end = b * BLOCK, min(n, (b + 1) * BLOCK)
        m = end - start
        px, py, pz = xs[start:end], ys[start:end], zs[start:end]
        for i in range(m):
            d0[i] = d1[i] = d3[i] = infinite
            i0[i] = i1[i] = i3[i] = 0
        seen = 0
        for c in range(count):
            if bound[c] * LESS - TINY > limit:
                continue
            x, y, z, who = cx[c], cy[c], cz[c], np.int32(c)
            seen += 1
            for i in range(m):
                dx, dy, dz = px[i] - x, py[i] - y, pz[i] - z
                d = (dx * dx + dy * dy) + dz * dz
                a, e, g = d0[i], d1[i], d3[i]
                ia, ie, ig = i0[i], i1[i], i3[i]
                # Before ``seen`` centres were tried an infinite distance is a place that is still free.
                first, second, third = d < a or seen == 1, d < e or seen == 2, d < g or seen == 3
                d3[i] = e if first or second else (d if third else g)
                i3[i] = ie if first or second else (who if third else ig)
                d1[i] = a if first else (d if second else e)
                i1[i] = ia if first else (who if second else ie)
                d0[i] = d if first else a
                i0[i] = who if first else ia
        for i in range(m):
            p = order[start + i]
            index[p, 0], index[p, 1], index[p, 2] = i0[i], i1[i], i3[i]
            d2[p, 0], d2[p, 1], d2[p, 2] = d0[i], d1[i], d3[i]


def three_of(points: Blocks, centers: F32) -> tuple[I64, F32]:
    """:func:`three` with its result made: (N, 3) int64 and (N, 3) float32."""
    n = len(points.order)
    index, d2 = np.empty((n, 3), np.int64), np.empty((n, 3), np.float32)
    three(points.order, points.xyz, points.low, points.high, np.ascontiguousarray(centers.T), index, d2)
    return index, d2
