"""Many frames in a row through the pipeline: resident memory after the warm-up must not grow by 1 %.

.venv/bin/python benchmarks/soak.py --bundle bundle --frames 2000 --write
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from paper_model import output

from edge_ad.bundle import Bundle
from edge_ad.evaluation.tables import Table
from edge_ad.frame import Frame
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.pipeline import Pipeline, plan, threads_for
from edge_ad.runtime.point import choose_point
from edge_ad.runtime.profiling.memory import peak_mb, resident_mb
from edge_ad.sensors import open_camera

ALLOWED = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--camera", help="default: the bundle's golden frames, again and again")
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--mode", choices=("throughput", "latency"), default="throughput")
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    args = parser.parse_args()
    if args.frames <= args.warm_up:
        parser.error("--frames must be more than --warm-up")
    bundle = Bundle.open(args.bundle)
    point = choose_point(bundle)
    view = bundle.as_variant(point.variant, point.stride)
    threads = threads_for(args.mode)
    detector = Detector(view, point.backend, point.precision, threads, need_threshold=False)
    if args.camera:
        with open_camera(args.camera) as camera:
            frames = [f for f in islice(camera, 24) if isinstance(f, Frame)]
    else:
        frames = [g.frame for g in bundle.golden()]
    memory: list[float] = []
    start = time.perf_counter()
    source = islice(cycle(frames), args.frames)
    with Pipeline(source, plan(detector, args.mode), in_flight=int(args.mode == "latency")) as run:
        for _ in run:
            memory.append(resident_mb())
    seconds = time.perf_counter() - start
    after = np.array(memory[args.warm_up :])
    tenth = max(1, len(after) // 10)
    early, late = float(np.median(after[:tenth])), float(np.median(after[-tenth:]))
    growth = late / early - 1
    document = {
        "point": str(point),
        "frames": args.frames,
        "seconds": seconds,
        "early_mb": early,
        "late_mb": late,
        "highest_mb": float(after.max()),
        "peak_mb": peak_mb(),
        "growth": growth,
        "allowed": ALLOWED,
        "every_50th_mb": memory[::50],
    }
    rows = tuple(
        (name, f"{value:.1f}")
        for name, value in (
            (f"median of the first {tenth} frames after frame {args.warm_up}, MB", early),
            (f"median of the last {tenth}, MB", late),
            ("highest after the warm-up, MB", float(after.max())),
            ("frames a second", args.frames / seconds),
        )
    )
    told = f"growth {growth:+.2%}, allowed below {ALLOWED:.0%}: {'held' if growth < ALLOWED else 'NOT HELD'}"
    title = f"{args.frames} frames in a row ({args.mode}; {point})"
    output("soak", args, document, [Table(title, ("resident memory", "value"), rows, (), (told,))])
    return 0 if growth < ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
