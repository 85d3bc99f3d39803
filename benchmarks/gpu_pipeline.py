"""Frames a second and milliseconds a frame of the device pipeline on this GPU, with its engines.

    python benchmarks/gpu_pipeline.py BUNDLE [--backend tensorrt --precision fp16 --frames 200 --json out.json]

Frames are the bundle's golden ones in turn. Latency: one frame after another. Throughput: the stages on threads, two
frames in flight. Device stages are timed by events. Needs ``edge-ad build-engine BUNDLE`` on this device first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.device.detector import DEVICE_BACKENDS, DeviceDetector
from edge_ad.runtime.pipeline import Pipeline, stages


def main() -> int:
    """Measure, print the table."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("bundle", type=Path)
    made.add_argument("--backend", choices=DEVICE_BACKENDS, default="tensorrt")
    made.add_argument("--precision", default="fp16")
    made.add_argument("--frames", type=int, default=200)
    made.add_argument("--warm-up", type=int, default=10)
    made.add_argument("--json", type=Path)
    a = made.parse_args()
    try:
        bundle = Bundle.open(a.bundle)
        golden = [g.frame for g in bundle.golden()]
        if not golden:
            raise EdgeAdError(f"{bundle.where} has no golden frames", "frames to time")
        detector = DeviceDetector(bundle, a.backend, a.precision, need_threshold=False)
        for frame in islice(cycle(golden), a.warm_up):
            detector(frame)
        results = [detector(frame) for frame in islice(cycle(golden), a.frames)]
        start = time.perf_counter()
        with Pipeline(islice(cycle(golden), a.frames), stages(detector)) as pipeline:
            count = sum(1 for _ in pipeline)
        rate = count / (time.perf_counter() - start)
    except EdgeAdError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    names = list(dict.fromkeys(n for r in results for n in r.times_ms))
    table = {n: np.percentile([r.times_ms.get(n, 0.0) for r in results], (50, 90, 99)).tolist() for n in names}
    print(f"{detector.driver.name}, {a.backend} {a.precision}, {bundle.preset.name}, {a.frames} frames\n")
    print("| stage | p50 ms | p90 | p99 |\n| --- | --- | --- | --- |")
    for name, (p50, p90, p99) in table.items():
        print(f"| {name} | {p50:.3f} | {p90:.3f} | {p99:.3f} |")
    memory = detector.device_memory_mb()
    graphs = detector.device.why_no_graphs or "yes"
    print(f"\nthroughput {rate:.1f} frames/s; device memory: {memory}; CUDA graphs: {graphs}")
    if a.json:
        document = {"device": detector.driver.name, "stages_ms": table, "frames_per_s": rate, "memory_mb": memory}
        a.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
