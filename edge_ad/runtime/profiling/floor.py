"""The least that each stage could take: counted arithmetic and traffic over measured (or published) rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.runtime.profiling.machine import Peak

COUNTS = ("gflop", "weights_mb", "least_mb", "traffic_mb")
STAGE_OF = {"rgb": "rgb encoder", "points": "point encoder", "tokens": "tokens", "score": "score"}


@dataclass(frozen=True)
class Work:
    """What a stage has to do for one frame: 10^9 operations, and 10^6 bytes.

    weights_mb : of its graph. least_mb : weights, inputs and outputs. traffic_mb : and all tensors between them.
    """

    gflop: float
    weights_mb: float
    least_mb: float
    traffic_mb: float

    def floor_ms(self, peak: Peak) -> float:
        """Milliseconds at the measured peak of products. Traffic is not part of it: a good program keeps most of it
        in the caches; beside it stands :meth:`traffic_ms`."""
        return self.gflop / peak.gflops * 1e3

    def traffic_ms(self, peak: Peak) -> float:
        """Milliseconds to move the counted bytes at the measured rate of a copy."""
        return self.traffic_mb / 1e3 / peak.copy_gb_s * 1e3


def count_work(bundle: Bundle, scored_pixels: float) -> dict[str, Work]:
    """Work a stage of one frame with one part, from the counts that export wrote; empty for a bundle without them.

    scored_pixels : rows of the score graph (mean over the frames).
    """
    out = {}
    for graph, stage in STAGE_OF.items():
        counts = bundle.graph(graph).meta.get("counts")
        if not isinstance(counts, dict) or not all(isinstance(counts.get(k), (int, float)) for k in COUNTS):
            return {}
        scale = scored_pixels / counts["rows"] if "rows" in counts else 1.0
        weights = float(counts["weights_mb"])
        least, traffic = (weights + (float(counts[k]) - weights) * scale for k in ("least_mb", "traffic_mb"))
        out[stage] = Work(float(counts["gflop"]) * scale, weights, least, traffic)
    return out


@dataclass(frozen=True)
class Board:
    """A board's published dense peaks: FP16 TFLOP/s and GB/s of memory."""

    name: str
    fp16_tflops: float
    gb_s: float


BOARDS = (
    Board("AGX Orin 64 (MAXN)", 42.6, 204.8),
    Board("Orin NX 16", 15.0, 102.4),
    Board("Orin NX 16 Super", 19.0, 102.4),
    Board("Orin Nano 8", 10.2, 68.0),
    Board("Orin Nano 8 Super", 16.7, 102.0),
)
SHARE = (0.25, 0.35)
"""Share of the FP16 peak that published ViT-B engines reach on AGX Orin."""
ASSUMPTIONS = (
    "a projection, not a measurement: no such board was at hand",
    f"FP16 engines at {SHARE[0]:.0%} to {SHARE[1]:.0%} of the dense FP16 peak, the share that published ViT-B engines "
    "reach on AGX Orin; or bound by memory, where moving weights, inputs and outputs in FP16 takes longer (everything "
    "between them fused)",
    "the four graphs alone: geometry, point operations, smoothing and outputs are not in it",
    "the full power mode of each board, nothing else running",
)


def project(work: Mapping[str, Work]) -> list[dict[str, Any]]:
    """Milliseconds a frame on the boards, (best, worst) by the shares; empty where nothing was counted."""
    if not work:
        return []
    rows = []
    for board in BOARDS:
        moved = [w.least_mb / 2 / board.gb_s for w in work.values()]
        times = [
            sum(max(w.gflop / board.fp16_tflops / share, m) for w, m in zip(work.values(), moved)) for share in SHARE
        ]
        rows.append({**asdict(board), "ms_best": min(times), "ms_worst": max(times)})
    return rows
