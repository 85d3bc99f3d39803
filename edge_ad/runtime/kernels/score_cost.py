"""Bytes and operations of the scoring kernels, counted from the code, and the floors they imply on a device.

As in ``cost``: bytes that must cross the device's memory once (what a cache holds counts once), operations on data.
An exponential, an error function and a square root count as :data:`SPECIAL` operations. Multiply-adds count
as two; in FP16 they run on the tensor cores, whose published dense peak is the limit then.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_ad.runtime.kernels.cost import Device

SPECIAL = 12
TENSOR_TFLOPS = {"AGX Orin 64": 42.6, "Orin Nano Super": 16.7, "H100 SXM": 989.0}
"""Dense FP16 with FP32 sums, 10^12 operations a second."""


@dataclass(frozen=True)
class ScoreProblem:
    """Sizes of one part: n valid pixels, tokens of both modalities, widths (``runtime.device.weights``), storage.

    text : (hidden, rank) of both MLPs into the text space, or empty. half : FP16 storage.
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


@dataclass(frozen=True)
class ScoreCost:
    """What the launches of one kernel move and compute for one part. ``tensor``: operations on the tensor cores."""

    kernel: str
    bytes: int
    operations: int
    tensor: int = 0

    def floor_ms(self, device: Device) -> float:
        """The least time on a device: memory, lanes or tensor cores, whichever is slowest. Latencies come on top."""
        lanes = 2 * 128e9 * device.clock_ghz * device.multiprocessors  # multiply-adds may be fused here
        tensor = TENSOR_TFLOPS.get(device.name, float("inf")) * 1e12  # of other devices memory and lanes alone
        return 1e3 * max(self.bytes / (device.memory_gbs * 1e9), self.operations / lanes, self.tensor / tensor)


def triangular_products(hidden: int, rank: int, tile: int = 64) -> int:
    """Multiply-adds a row of a layer that is zero left of its diagonal, as ``score_product`` does them."""
    padded = -(-hidden // 32) * 32
    return sum(min(tile, rank - c) * max(0, padded - c) for c in range(0, rank, tile))


def score_costs(p: ScoreProblem) -> list[ScoreCost]:
    """Every kernel of the fused scoring of one part, launches over chunks taken together."""
    unit = 2 if p.half else 4
    tag = "f16" if p.half else "f32"
    rgb, points = p.rgb_tokens * p.rgb_width, p.groups * p.point_width
    taps = p.n * (4 + 24)
    out = []
    if p.half:
        out.append(ScoreCost("score_pack", (rgb + points) * 6, rgb + points))
    d = p.dim_points
    # Four columns at 4 rows, the feature at 3; gate, blend, mean, variance, LayerNorm, GELU, two norms, distance.
    gacm = p.n * d * (4 * 7 + 5 + (SPECIAL + 2) + 4 + 1 + 3 + 4 + (SPECIAL + 4) + 1 + 4 + 5)
    out.append(ScoreCost(f"score_gacm_{tag}", 4 * p.rgb_tokens * d * unit + p.groups * d * unit + taps + 4 * p.n, gacm))
    layers = [("points", p.to_rgb, 3), *zip(("rgb", "points"), p.text, (4, 3))]
    for number, (which, (hidden, rank), count) in enumerate(layers):
        stride = -(-hidden // 32) * 32
        table = (p.rgb_tokens if which == "rgb" else p.groups) * hidden * unit
        operand, mapped = p.n * stride * unit, p.n * rank * 4
        work = p.n * hidden * (2 * count - 1 + SPECIAL + 4)
        out.append(ScoreCost(f"score_operand_{which}_{tag}", table + taps + operand, work))
        sums = 2 * p.n * triangular_products(hidden, rank)
        moved = operand + rank * stride * unit + mapped
        out.append(ScoreCost(f"score_product_{tag}", moved, 0 if p.half else sums, sums if p.half else 0))
        if number == 0:
            feature = p.rgb_tokens * p.dim_rgb * unit
            out.append(
                ScoreCost(f"score_distance_rgb_{tag}", feature + taps + mapped + 4 * p.n, p.n * p.dim_rgb * (7 + 4 + 5))
            )
        else:
            out.append(ScoreCost("score_distance_anchor", mapped + 4 * p.n, p.n * rank * (2 + 4)))
    out.append(ScoreCost("score_fuse", p.n * (4 + 4 * (2 + len(p.text))) + 8 * p.pixels, 5 * p.n))
    if p.text:
        out.append(ScoreCost("score_anchor_mean", 8 * p.n, 2 * p.n))
    return out
