"""Bytes and operations of the kernels for one frame, and the floors they imply. Counted, not timed.

    .venv/bin/python benchmarks/kernel_floors.py                 # the paper's sizes, every pixel of 224 x 224 valid
    .venv/bin/python benchmarks/kernel_floors.py --share 0.33    # a foreground of a third
    .venv/bin/python benchmarks/kernel_floors.py --write         # keep it in benchmarks/results/kernel_floors.md

The cloud is a wavy surface with the noise of a depth camera; what sampling and grouping touch is counted on it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_ad.files import write_text
from edge_ad.presets import load_preset
from edge_ad.runtime.kernels.cost import Problem, costs, grouping_work, interpolation_work, sampling_work
from edge_ad.runtime.kernels.floor import DEVICES
from edge_ad.runtime.kernels.launch import smoothing, tile_buckets
from edge_ad.runtime.kernels.score_cost import ScoreProblem, score_costs
from edge_ad.runtime.pointops import farthest_point_sample

RESULTS = Path(__file__).resolve().parent / "results"


def surface(size: int, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) float32 points and (size, size) int32 rank of a disc that covers ``share`` of the grid."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    z = 0.5 + 0.02 * np.sin(x / 17) * np.cos(y / 13) + rng.normal(0, 3e-4, x.shape)
    valid = (x - size / 2) ** 2 + (y - size / 2) ** 2 <= share * size * size / np.pi if share < 1 else x >= 0
    xyz = np.stack([(x - size / 2) * 1e-3, (y - size / 2) * 1e-3, z], axis=-1).astype(np.float32)
    rank = np.full((size, size), -1, np.int32)
    rank[valid] = np.arange(int(valid.sum()))
    return np.ascontiguousarray(xyz[valid]), rank


def scoring(valid: int, size: int, groups: int) -> ScoreProblem:
    """The scoring kernels' sizes in the paper's model, FP16 storage: GACM, and three MLPs of (in + out) / 2 units
    whose last layers are turned (rank: the smaller of outputs and hidden units + 1)."""
    p = load_preset("paper")
    rgb, points, text = p.feature_rgb, p.feature_points, p.text.dim
    hidden = [(points + rgb) // 2, (rgb + text) // 2, (points + text) // 2]
    to_rgb = (hidden[0], min(rgb, hidden[0] + 1))
    pairs = tuple((h, min(text, h + 1)) for h in hidden[1:])
    widths = rgb + 4 * points + hidden[1], points + hidden[0] + hidden[2]
    return ScoreProblem(valid, size * size, p.rgb.grid**2, groups, *widths, rgb, points, to_rgb, pairs, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="share of the sample grid that is valid")
    parser.add_argument("--groups", type=int, default=1024)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    given = parser.parse_args()
    lines: list[str] = []
    size, height, width = 224, 480, 640
    points, rank = surface(size, given.share)
    buckets = tile_buckets(size)
    sampling = sampling_work(points, buckets, given.groups, rank, size)
    centers = points[farthest_point_sample(points, given.groups)]
    grouping = grouping_work(points, centers, given.k, buckets, rank, size)
    problem = Problem(height, width, width, size, len(points), given.groups, given.k)
    filters = smoothing(replace(load_preset("paper").fusion, smoothing="box-cascade"))
    interpolation = interpolation_work(points, centers, buckets, rank, size)
    lines.append(
        f"{len(points)} valid points of {size} x {size}, {given.groups} groups of {given.k}, {width} x {height} camera"
    )
    every = len(points) * (given.groups - 1)
    lines.append(
        f"sampling reads {sampling.slots / 1e6:.2f} million slots ({sampling.slots / every:.1%} of all distances)"
    )
    lines.append(
        f"grouping reads {grouping.slots / 1e6:.2f} million slots ({grouping.slots / every:.1%} of all distances)"
    )
    share = interpolation.slots / every
    lines.append(
        f"interpolation by buckets compares {interpolation.slots / 1e6:.2f} million pairs ({share:.1%} of all)"
    )
    lines.append("")
    names = " | ".join(f"{d.name} ms" for d in DEVICES)
    lines.append(f"| kernel | MB | million operations | {names} |\n|---|---|---|{'---|' * len(DEVICES)}")
    totals = [0.0] * len(DEVICES)
    counted = costs(problem, buckets, sampling, grouping, interpolation, filters)
    for cost in (*counted, *score_costs(scoring(len(points), size, given.groups))):
        floors = [cost.floor_ms(d) for d in DEVICES]
        totals = [a + b for a, b in zip(totals, floors, strict=True)]
        text = " | ".join(f"{f:.4f}" for f in floors)
        operations = (cost.operations + cost.float64 + cost.tensor) / 1e6
        lines.append(f"| {cost.kernel} | {cost.bytes / 1e6:.2f} | {operations:.2f} | {text} |")
    lines.append(f"| all | | | {' | '.join(f'{t:.3f}' for t in totals)} |")
    print("\n".join(lines))
    if given.write:
        write_text(
            RESULTS / "kernel_floors.md", "\n".join(["# Floors of the kernels: counted, not timed", "", *lines, ""])
        )


if __name__ == "__main__":
    main()
