"""Point operations on one core: sampling, grouping and interpolation, and their exactness in the same run.

Each cloud is a wavy disc with the noise of a depth camera; ``flat lattice`` is a plane without noise, where most
distances tie. Results are compared with brute force by the rule of METHOD section 2 (all of sampling; grouping and
interpolation on every 50th query).

    .venv/bin/python benchmarks/point_operations.py --write
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from paper_model import measure, output, part_sample

from edge_ad.evaluation.tables import Table
from edge_ad.frame import F32, I64
from edge_ad.runtime.pointops import arrange, farthest_point_sample, k_nearest, squared_distance, three_nearest

GROUPS, SIZE = 1024, 32
LIMIT_MS = {18_000: 70.0, 50_176: 120.0}
"""What the project asks of sampling, grouping and interpolation together."""


def cloud(points: int) -> F32:
    sample = part_sample(points)
    return np.ascontiguousarray(sample.xyz[sample.valid])


def lattice() -> F32:
    v, u = np.mgrid[:224, :224].astype(np.float32)
    return np.stack([u * 1e-3, v * 1e-3, np.full_like(u, 0.5)], axis=-1).reshape(-1, 3).astype(np.float32)


def exact(points: F32, chosen: I64, neighbours: I64, three: I64) -> bool:
    """Whether the indices are those of brute force."""
    centers = points[chosen]
    near = np.full(len(points), np.inf, np.float32)
    last, expected = 0, []
    for _ in range(len(chosen)):
        expected.append(last)
        near = np.minimum(near, squared_distance(points, points[last]))
        last = int(near.argmax())
    if not np.array_equal(chosen, expected):
        return False
    some = range(0, len(centers), 50)
    groups = [np.argsort(squared_distance(points, centers[g]), kind="stable")[:SIZE] for g in some]
    rows = range(0, len(points), 50)
    nearest = [np.argsort(squared_distance(centers, points[p]), kind="stable")[:3] for p in rows]
    return np.array_equal(neighbours[::50], groups) and np.array_equal(three[::50], nearest)


def run(points: F32, repeats: int) -> dict[str, Any]:
    ms: dict[str, float] = {}
    seconds, blocks = measure(lambda: arrange(points), repeats)
    ms["arrange"] = 1e3 * seconds
    seconds, chosen = measure(lambda: farthest_point_sample(points, GROUPS, blocks), repeats)
    ms["sample"] = 1e3 * seconds
    centers = points[chosen]
    seconds, neighbours = measure(lambda: k_nearest(points, centers, SIZE, blocks), repeats)
    ms["group"] = 1e3 * seconds
    seconds, (three, _) = measure(lambda: three_nearest(points, centers, blocks=blocks), repeats)
    ms["interpolate"] = 1e3 * seconds
    return {"points": len(points), "ms": ms, "exact": exact(points, chosen, neighbours, three)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    args = parser.parse_args()
    results = {f"{n} points": run(cloud(n), args.repeats) for n in LIMIT_MS}
    results["flat lattice, 50176 points"] = run(lattice(), args.repeats)
    rows = []
    for name, r in results.items():
        total, limit = sum(r["ms"].values()), LIMIT_MS.get(r["points"], 0.0)
        rows.append((name, *(f"{v:.1f}" for v in r["ms"].values()), f"{total:.1f}", f"{limit:.0f}", str(r["exact"])))
    table = Table(
        f"point operations, ms on one core (medians of {args.repeats}); {GROUPS} groups of {SIZE}",
        ("cloud", "arrange", "sample", "group", "interpolate", "all", "wanted", "as brute force"),
        tuple(rows),
    )
    output("point_operations", args, results, [table])
    return 0 if all(r["exact"] for r in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
