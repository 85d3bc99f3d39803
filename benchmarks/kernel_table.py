"""Every CUDA kernel, compiled for every supported compute capability: registers, shared memory, spills.

    .venv/bin/python benchmarks/kernel_table.py            # the table; exit code 1 where anything spills or fails
    .venv/bin/python benchmarks/kernel_table.py --sm 8.7
    .venv/bin/python benchmarks/kernel_table.py --write    # keep it in benchmarks/results/kernel_table.md

Needs nvcc or NVRTC, no GPU. Says nothing about speed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_ad.engines.cuda_compiler import Resources, compile_kernel, compiler
from edge_ad.errors import EdgeAdError
from edge_ad.files import write_text
from edge_ad.runtime import kernels

RESULTS = Path(__file__).resolve().parent / "results"
CAPABILITIES = ((8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (11, 0), (12, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sm", action="append", metavar="X.Y", help="a compute capability; may be repeated")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    given = parser.parse_args()
    asked = given.sm
    targets = [tuple(int(n) for n in text.split(".")) for text in asked] if asked else list(CAPABILITIES)
    found: dict[str, dict[tuple[int, ...], Resources]] = {}
    try:
        for target in targets:
            for name in kernels.names():
                for r in compile_kernel(name, (target[0], target[1])).resources:
                    found.setdefault(r.entry, {})[target] = r
    except EdgeAdError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    marks = [f"sm_{a}{b}" for a, b in targets]
    lines = [f"compiler: {compiler()}; registers a thread, static shared memory in bytes; spills: none", ""]
    lines += [f"| kernel | shared | {' | '.join(marks)} |", f"|---|---|{'---|' * len(marks)}"]
    for name in kernels.names():
        for entry in kernels.entries(name):
            row = found[entry]
            shared = max(r.shared_bytes for r in row.values())
            registers = " | ".join(str(row[t].registers) for t in targets)
            lines.append(f"| {entry} | {shared} | {registers} |")
    print("\n".join(lines))
    if given.write:
        write_text(RESULTS / "kernel_table.md", "\n".join(["# Registers of the kernels", "", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
