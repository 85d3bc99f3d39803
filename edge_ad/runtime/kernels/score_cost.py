"""Bytes and operations of the scoring kernels, counted from the code, and the floors they imply on a device.

As in ``cost``: bytes that must cross the device's memory once (what a cache holds counts once), operations on data.
An exponential, an error function and a square root count as :data:`SPECIAL` operations. Multiply-adds count
as two; in FP16 they run on the tensor cores, whose published dense peak is the limit then.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_ad.runtime.kernels.floor import Cost

SPECIAL = 12


@dataclass(frozen=True)
class ScoreProblem:
    """Sizes of one part: n valid pixels, tokens of both modalities, widths (``runtime.device.weights``), storage.

    text : (hidden, rank) of both MLPs into the text space, or empty. half : FP16 storage. some : pixels on which
    ``classes`` classes are compared, 0: the class is known. levels : expected distances divide the measured ones.
    """

    n: int
    pixels: int
    rgb_tokens: int
    groups: int
    rgb_width: int
    point_width: int
    dim_rgb: int
    dim_points: int
    to_rgb: tuple[int, int]
    text: tuple[tuple[int, int], ...]
    half: bool
    some: int = 0
    classes: int = 1
    levels: bool = False


def triangular_products(hidden: int, rank: int, tile: int = 64) -> int:
    """Multiply-adds a row of a layer that is zero left of its diagonal, as ``score_product`` does them."""
    padded = -(-hidden // 32) * 32
    return sum(min(tile, rank - c) * max(0, padded - c) for c in range(0, rank, tile))


def score_costs(p: ScoreProblem) -> list[Cost]:
    """Every kernel of the fused scoring of one part, launches over chunks taken together."""
    unit = 2 if p.half else 4
    rgb, points = p.rgb_tokens * p.rgb_width, p.groups * p.point_width
    taps = p.n * (4 + 24)
    out: list[Cost] = []

    def add(kernel: str, moved: int, operations: int, tensor: int = 0) -> None:
        out.append(Cost(kernel, moved, operations, tensor=tensor, fused=True))

    if p.half:
        add("score_pack", (rgb + points) * 6, rgb + points)
    if p.some and p.text:
        add("score_subset", p.some * 2 * (4 + 24), p.some * 3)
        add("score_class_means", 2 * p.classes * p.some * p.text[0][1] * 4, 2 * p.classes * p.some * p.text[0][1] * 6)
        add("score_choose_class", p.classes * 8, p.classes)
    d = p.dim_points
    # Four columns at 4 rows, the feature at 3; gate, blend, mean, variance, LayerNorm, GELU, two norms, distance.
    gacm = p.n * d * (4 * 7 + 5 + (SPECIAL + 2) + 4 + 1 + 3 + 4 + (SPECIAL + 4) + 1 + 4 + 5)
    add("score_gacm", 4 * p.rgb_tokens * d * unit + p.groups * d * unit + taps + 4 * p.n, gacm)
    layers = [("points", p.to_rgb, 3), *zip(("rgb", "points"), p.text, (4, 3))]
    for number, (which, (hidden, rank), count) in enumerate(layers):
        stride = -(-hidden // 32) * 32
        table = (p.rgb_tokens if which == "rgb" else p.groups) * hidden * unit
        operand, mapped = p.n * stride * unit, p.n * rank * 4
        add(f"score_operand_{which}", table + taps + operand, p.n * hidden * (2 * count - 1 + SPECIAL + 4))
        sums = 2 * p.n * triangular_products(hidden, rank)
        moved = operand + rank * stride * unit + mapped
        add(f"score_product_{'f16' if p.half else 'f32'}", moved, 0 if p.half else sums, sums if p.half else 0)
        if number == 0:
            feature = p.rgb_tokens * p.dim_rgb * unit
            add("score_distance_rgb", feature + taps + mapped + 4 * p.n, p.n * p.dim_rgb * (7 + 4 + 5))
        else:
            add("score_distance_anchor", mapped + 4 * p.n, p.n * rank * (2 + 4))
    if p.levels:
        add("score_levels", (p.rgb_tokens + p.groups) * 4 + taps + 16 * p.n, p.n * 14)
    add("score_fuse", p.n * (4 + 4 * (2 + len(p.text))) + 8 * p.pixels, 5 * p.n)
    if p.text:
        add("score_anchor_mean", 8 * p.n, 2 * p.n)
    return out
