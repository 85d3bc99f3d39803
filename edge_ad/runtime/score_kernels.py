"""Compiled kernels of the scoring stage: interpolate, gate, LayerNorm, GELU, matrix product, normalise, distance.

Each scores the pixels ``start .. end`` of one of the four terms (METHOD.md sections 3, 6 and 7) and keeps a block of
pixels in the cache; no array of all pixels times all channels exists. Tables and weights come flat (one dimension):
a row is then a plain run of memory, which the compiler turns into vector instructions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, I64, U8
from edge_ad.runtime.jit import FUSED, compiled, product

I32 = NDArray[np.int32]
f32 = np.float32
# erf(x) = x P(x^2) / Q(x^2) on |x| <= 3.85 and tanh(x) likewise on |x| <= 8.5: minimax fits, error below 4e-8 before
# rounding and below 4e-7 in float32 (tests/runtime/test_score_kernels.py).
HALF, ONE, HALF_ROOT = f32(0.5), f32(1), f32(np.sqrt(0.5))
TINY = f32(1e-24)
"""Least squared length that a vector is divided by."""
E_MAX, T_MAX = f32(3.85), f32(8.5)
E0, E1, E2, E3 = f32(1.12837885), f32(0.199614487), f32(0.0505458718), f32(0.00371047034)
E4, E5, E6 = f32(0.000143909838), f32(-2.00639978e-06), f32(2.06510949e-08)
G1, G2, G3, G4 = f32(0.510233314), f32(0.114887285), f32(0.0143449479), f32(0.000964412489)
T0, T1, T2, T3 = f32(0.999999983), f32(0.131005054), f32(0.00312254786), f32(1.13542914e-05)
T4, T5, T6 = f32(-2.10769926e-08), f32(5.71491212e-11), f32(-9.69383111e-14)
U1, U2, U3 = f32(0.464338314), f32(0.0245687465), f32(0.00025735255)


@compiled(**FUSED)
def within(z: np.float32, most: np.float32) -> np.float32:
    """``z`` cut at plus and minus ``most``; NaN stays NaN."""
    z = most if z > most else z
    return -most if z < -most else z


@compiled(**FUSED)
def gelu(x: np.float32) -> np.float32:
    """Exact GELU, x (1 + erf(x / sqrt 2)) / 2."""
    z = within(x * HALF_ROOT, E_MAX)
    u = z * z
    p = ((((((E6 * u + E5) * u + E4) * u + E3) * u + E2) * u + E1) * u + E0) * z
    q = (((G4 * u + G3) * u + G2) * u + G1) * u + ONE
    return HALF * x * (ONE + p / q)


@compiled(**FUSED)
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + exp(-x)) as (1 + tanh(x / 2)) / 2."""
    z = within(x * HALF, T_MAX)
    u = z * z
    p = ((((((T6 * u + T5) * u + T4) * u + T3) * u + T2) * u + T1) * u + T0) * z
    q = ((U3 * u + U2) * u + U1) * u + ONE
    return HALF + HALF * (p / q)


@compiled(**FUSED)
def blend3(out: F32, o: int, table: F32, at: I64, weight: F32, i: int, first: int, count: int) -> None:
    """``count`` columns from ``first`` on of pixel ``i``, into ``out[o:]``: a weighted sum of three table rows.

    table : flat. at : (n, 3) int64 offsets of rows, with their weights. No view is passed on a pixel: counting its
    references would cost more than the sum.
    """
    row = out[o : o + count]
    wa, wb, wc = weight[i, 0], weight[i, 1], weight[i, 2]
    a = table[at[i, 0] + first : at[i, 0] + first + count]
    b = table[at[i, 1] + first : at[i, 1] + first + count]
    c = table[at[i, 2] + first : at[i, 2] + first + count]
    for j in range(count):
        row[j] = wa * a[j] + wb * b[j] + wc * c[j]


@compiled(**FUSED)
def blend4(out: F32, o: int, table: F32, at: I64, weight: F32, i: int, first: int, count: int) -> None:
    """As :func:`blend3`, of four rows. (One function for both runs at a quarter of the speed.)"""
    row = out[o : o + count]
    wa, wb, wc, wd = weight[i, 0], weight[i, 1], weight[i, 2], weight[i, 3]
    a = table[at[i, 0] + first : at[i, 0] + first + count]
    b = table[at[i, 1] + first : at[i, 1] + first + count]
    c = table[at[i, 2] + first : at[i, 2] + first + count]
    d = table[at[i, 3] + first : at[i, 3] + first + count]
    for j in range(count):
        row[j] = (wa * a[j] + wb * b[j]) + (wc * c[j] + wd * d[j])


@compiled(**FUSED)
def unit_distance(target: F32, found: F32, o: int, offset: F32, size: int, rest: int) -> np.float32:
    """|| t/|t| - u/|u| || of t = target[:rest] and u = found[o:] + offset, whose entries from ``size`` on are zero.

    As || t - u (|t|/|u|) || / |t|. A factor of a loop is a root of a quotient here and below, never a quotient: the
    compiler would take its division into the loop.
    """
    u = found[o : o + size]
    tt, uu = f32(0), f32(0)
    for j in range(size):
        v = u[j] + offset[j]
        u[j] = v
        uu += v * v
        tt += target[j] * target[j]
    tail = f32(0)
    for j in range(size, rest):
        tail += target[j] * target[j]
    tt = max(tt + tail, TINY)
    ratio = np.sqrt(tt / max(uu, TINY))
    total = tail
    for j in range(size):
        d = target[j] - u[j] * ratio
        total += d * d
    return np.sqrt(total / tt)


@compiled(**FUSED)
def anchor_distance(
    found: F32, o: int, offset: F32, size: int, anchors: F32, anchor_rest: F32, out: F32, p: int
) -> None:
    """``out[k, p]`` = || anchor k - u/|u| || of u = found[o:] + offset, for every anchor."""
    u = found[o : o + size]
    uu = f32(0)
    for j in range(size):
        v = u[j] + offset[j]
        u[j] = v
        uu += v * v
    iu = np.sqrt(ONE / max(uu, TINY))
    for k in range(len(anchor_rest)):
        anchor = anchors[k * size : (k + 1) * size]
        total = f32(0)
        for j in range(size):
            d = anchor[j] - u[j] * iu
            total += d * d
        out[k, p] = np.sqrt(total + anchor_rest[k])


@compiled(**FUSED)
def gated(row: F32, width: int, norm: F32, shift: F32, eps: np.float32) -> None:
    """R + GELU(LN(F_geo g + F_sem (1 - g))) (eq. 3 and 4), into ``row[4 width:]``; ``row`` as :func:`score_gacm`."""
    sem, geo, res, gate = row[:width], row[width : 2 * width], row[2 * width : 3 * width], row[3 * width : 4 * width]
    fused = row[4 * width : 5 * width]
    share = ONE / f32(width)
    total = f32(0)
    for j in range(width):
        v = sem[j] + sigmoid(gate[j]) * (geo[j] - sem[j])
        fused[j] = v
        total += v
    mean = total * share
    total = f32(0)
    for j in range(width):
        v = fused[j] - mean
        total += v * v
    scale = np.sqrt(ONE / (total * share + eps))
    for j in range(width):
        fused[j] = res[j] + gelu((fused[j] - mean) * scale * norm[j] + shift[j])


@compiled(**FUSED)
def rows_distance(row: F32, t: int, u: int, width: int) -> np.float32:
    """|| t/|t| - u/|u| || of the ``width`` entries from ``t`` on and those from ``u`` on."""
    a, b = row[t : t + width], row[u : u + width]
    tt, uu = f32(0), f32(0)
    for j in range(width):
        tt += a[j] * a[j]
        uu += b[j] * b[j]
    tt = max(tt, TINY)
    ratio = np.sqrt(tt / max(uu, TINY))
    total = f32(0)
    for j in range(width):
        d = a[j] - b[j] * ratio
        total += d * d
    return np.sqrt(total / tt)


@compiled(**FUSED)
def score_gacm(
    out: F32, start: int, end: int, rgb: F32, rgb_at: I64, rgb_weight: F32, points: F32, point_at: I64,
    point_weight: F32, first: int, width: int, norm: F32, shift: F32, eps: np.float32, row: F32,
) -> None:  # fmt: skip
    """``3d``: D(F_3d, F_rgb->3d) with the GACM of eq. 1-4. Nothing but element-wise work is left at a pixel.

    out : (1, n). rgb, points : the tables, flat. rgb_at : (n, 4), point_at : (n, 3) int64 offsets of table rows, with
    their weights. first : column of F_sem; F_geo, R and W_g F_geo follow, each ``width`` wide. norm, shift : (width,)
    of the LayerNorm. row : (>= 6 width,) scratch: the four, the mapped feature, the target.
    """
    for p in range(start, end):
        blend4(row, 0, rgb, rgb_at, rgb_weight, p, first, 4 * width)
        gated(row, width, norm, shift, eps)
        blend3(row, 5 * width, points, point_at, point_weight, p, 0, width)
        out[0, p] = rows_distance(row, 5 * width, 4 * width, width)


@compiled(**FUSED)
def gelu_rows(rows: F32, count: int, width: int, shift: F32) -> None:
    """GELU in place of ``count`` rows, plus ``shift`` (width,) first."""
    for i in range(count):
        row = rows[i * width : (i + 1) * width]
        for j in range(width):
            row[j] = gelu(row[j] + shift[j])


@compiled(**FUSED)
def hidden_rows(hidden: F32, start: int, count: int, table: F32, at: I64, weight: F32, first: int, width: int) -> None:
    """GELU of ``width`` interpolated columns from ``first`` on, for ``count`` pixels from ``start`` on, row by row."""
    if at.shape[1] == 3:
        for i in range(count):
            blend3(hidden, i * width, table, at, weight, start + i, first, width)
    else:
        for i in range(count):
            blend4(hidden, i * width, table, at, weight, start + i, first, width)
    used = hidden[: count * width]
    for j in range(count * width):
        used[j] = gelu(used[j])


@compiled(**FUSED)
def trapezoid(
    found: F32, hidden: F32, weight: F32, count: int, size: int, width: int, step: int, dims: I32, letters: U8,
    ones: F32,
) -> None:  # fmt: skip
    """found (count, size) = hidden (count, width) weight^T, where weight (size, width) is zero left of its diagonal.

    In blocks of ``step`` outputs, each of which reads the hidden units from its first output on alone.
    """
    c, a, b = found.ctypes.data, hidden.ctypes.data, weight.ctypes.data
    for o in range(0, size, step):
        n = min(step, size - o)
        if o >= width:
            for i in range(count):
                for j in range(o, o + n):
                    found[i * size + j] = f32(0)
            continue
        product(
            c + 4 * o, size, a + 4 * o, width, b + 4 * (o * width + o), width, count, n, width - o, dims, letters, ones
        )


@compiled(**FUSED)
def score_mlp(
    out: F32, start: int, end: int, block: int, table: F32, at: I64, weight: F32, first: int, width: int, middle: F32,
    middle_shift: F32, last: F32, shift: F32, step: int, targets: F32, target_at: I64, target_weight: F32, rest: int,
    anchors: F32, anchor_rest: F32, hidden: F32, found: F32, target: F32, dims: I32, letters: U8, ones: F32,
) -> None:  # fmt: skip
    """One mapper's MLP from its table columns on, and the distance to its target or to the anchors.

    out : (classes, n); one row where there are no anchors. block : pixels at a time. table, at, weight : the flat table
    of the mapper's input with (n, taps) row offsets and weights. first, width : columns of its first layer.
    middle : (width, width) flat and ``middle_shift`` (width,), empty without a middle layer. last : (size, width) flat,
    zero left of its diagonal (:func:`trapezoid`). shift : (size,). targets, target_at, target_weight : the table whose
    first ``rest`` columns are the target. anchors : (classes, size) flat with ``anchor_rest`` (classes,), the squared
    length of what lies outside of the mapper's range; empty: take the target.
    hidden : (>= block width, twice that with a middle layer), found : (>= block size,), target : (>= rest,) scratch.
    """
    size, classes = len(shift), len(anchor_rest)
    for begin in range(start, end, block):
        count = min(block, end - begin)
        hidden_rows(hidden, begin, count, table, at, weight, first, width)
        rows = hidden
        if len(middle):
            rows = hidden[block * width :]
            product(
                rows.ctypes.data, width, hidden.ctypes.data, width, middle.ctypes.data, width, count, width, width,
                dims, letters, ones,
            )  # fmt: skip
            gelu_rows(rows, count, width, middle_shift)
        trapezoid(found, rows, last, count, size, width, step, dims, letters, ones)
        for i in range(count):
            p = begin + i
            if classes:
                anchor_distance(found, i * size, shift, size, anchors, anchor_rest, out, p)
            elif target_at.shape[1] == 3:
                blend3(target, 0, targets, target_at, target_weight, p, 0, rest)
                out[0, p] = unit_distance(target, found, i * size, shift, size, rest)
            else:
                blend4(target, 0, targets, target_at, target_weight, p, 0, rest)
                out[0, p] = unit_distance(target, found, i * size, shift, size, rest)
