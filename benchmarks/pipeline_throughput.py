"""Frames a second from a camera's frame to the mask: one in flight, a thread a stage, whole frames on every core.

Frames are read into memory first, so that the camera costs nothing; everything from the frame to the Result is timed.
Without --bundle a compact model is fitted on synthetic parts (minutes). Where the bundle was tuned, its point is
measured beside the exact one. Medians over --repeats, in turns.

    .venv/bin/python benchmarks/pipeline_throughput.py --bundle bundle --data parts --write
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from common import Steps
from paper_model import output

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.evaluation.tables import Table
from edge_ad.frame import Frame
from edge_ad.parallel import cores
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.pipeline import Pipeline, Stage, plan, stages
from edge_ad.runtime.point import measured_row, price
from edge_ad.sensors import open_camera


def make(folder: Path, target_fps: float) -> tuple[Path, Path]:
    """A compact bundle with variants, calibrated and tuned, and its parts."""
    steps = Steps(folder / "json", 5)
    parts, model, bundle = folder / "parts", folder / "model", folder / "bundle"
    steps.edge_ad(
        "synth", "make parts", "synth", "--out", parts, "--parts", "small", "--classes", "gear,hex_nut,cookie"
    )
    variants = "light: groups=256, points-stride=3; short: layers=4, groups=256"
    steps.edge_ad(
        "fit", "fit the model and its variants", "fit", "--data", parts, "--out", model, "--variants", variants
    )
    steps.edge_ad("export", "export", "export", model, bundle, "--data", parts)
    rate = ("--false-reject-rate", 0.2)
    steps.edge_ad("calibrate", "thresholds", "calibrate", "thresholds", bundle, "--data", parts, *rate)
    steps.edge_ad("tune", "tune", "tune", bundle, "--data", parts, "--target-fps", target_fps, *rate)
    return bundle, parts


def rate(source: Sequence[Frame], parts: tuple[Stage, ...], count: int, in_flight: int = 0) -> tuple[float, float]:
    """(frames a second, median milliseconds from the source to the mask)."""
    start = time.perf_counter()
    with Pipeline(islice(cycle(source), count), parts, in_flight=in_flight) as pipeline:
        latency = [d.latency_ms for d in pipeline]
    return count / (time.perf_counter() - start), statistics.median(latency)


def measure(bundle: Bundle, point: OperatingPoint, frames: Sequence[Frame], args: argparse.Namespace) -> dict[str, Any]:
    """Every mode at one point."""
    view = bundle.as_variant(point.variant, point.stride)
    one = Detector(view, point.backend, point.precision, 1, need_threshold=False)
    whole = Detector(view, point.backend, point.precision, cores(), need_threshold=False)
    modes = {
        "latency (one in flight, all threads)": (plan(whole, "latency"), 1),
        "a thread a stage": (stages(one), 0),
        "throughput (frames on every core)": (plan(one, "throughput"), 0),
    }
    for frame in frames[:3]:
        one(frame), whole(frame)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in modes}
    for _ in range(args.repeats):
        for name, (parts, in_flight) in modes.items():
            found[name].append(rate(frames, parts, args.frames, in_flight))
    return {
        name: {
            "frames_per_second": statistics.median(r for r, _ in values),
            "all": [r for r, _ in values],
            "median_latency_ms": statistics.median(ms for _, ms in values),
        }
        for name, values in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: fit and tune a compact one")
    parser.add_argument("--data", type=Path, help="folder of frames; default: the bundle's golden frames")
    parser.add_argument("--target-fps", type=float, default=25.0, help="for tune, where the bundle is made here")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path, data = (args.bundle, args.data) if args.bundle else make(Path(temporary), args.target_fps)
        bundle = Bundle.open(path)
        if data is None:
            frames = [g.frame for g in bundle.golden()]
        else:
            with open_camera(f"folder:{data}") as camera:
                frames = [f for f in islice(camera, 24) if isinstance(f, Frame)]
        points = [OperatingPoint()] + ([bundle.point] if bundle.point else [])
        results, rows, notes = [], [], []
        for point in points:
            found = measure(bundle, point, frames, args)
            row = measured_row(bundle, point)
            results.append({"point": str(point), "modes": found, "tuned": None if row is None else dict(row)})
            for name, r in found.items():
                rows.append((f"{point}: {name}", f"{r['frames_per_second']:.1f}", f"{r['median_latency_ms']:.1f}"))
            if row is not None:
                notes.append(f"{point}: {price(row)} on the data that it was tuned on")
        columns = ("point: mode", "frames/s", "ms, source to mask")
        title = f"Pipeline on {cores()} cores, {len(frames)} different frames of {frames[0].shape}"
        output(
            "pipeline_throughput", args, {"results": results}, [Table(title, columns, tuple(rows), (), tuple(notes))]
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
