"""The encoders in OpenVINO's bfloat16 and float32 beside ONNX Runtime's float32, and how well the maps agree.

Weights of the paper preset are random (--preset compact takes the shipped ones): sizes are what costs time. A map's
correlation with random mappers is harder than with fitted ones, whose distances are smaller but smoother; the test of
the backend and `edge-ad tune` measure it on fitted models.

    .venv/bin/python benchmarks/openvino_bf16.py --threads 2 --repeats 5 --write
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from paper_model import literal_detector, output, paper_preset, part_sample

from edge_ad.bundle import Bundle, ClassEntry, write_bundle
from edge_ad.bundle.golden import npz_bytes
from edge_ad.evaluation.tables import Table
from edge_ad.export.bundle import trace_graphs
from edge_ad.export.graphs import score_arrays
from edge_ad.export.variants import graph_specs
from edge_ad.parallel import cores
from edge_ad.presets import load_preset
from edge_ad.runtime.backends import load_session
from edge_ad.runtime.backends.openvino import has_bf16
from edge_ad.runtime.detector import Detector

WAYS = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


def make_bundle(folder: Path, preset_name: str) -> Bundle:
    """A bundle of a preset with random mappers; enough to run the detector."""
    preset = paper_preset() if preset_name == "paper" else load_preset(preset_name)
    detector = literal_detector(preset, classes=1)
    graphs = trace_graphs(detector)
    files: dict[str, bytes | Path] = {f"onnx/{n}.onnx": g.onnx for n, g in graphs.items()}
    files["onnx/score.npz"] = npz_bytes(score_arrays(detector))
    return write_bundle(
        folder / "bundle",
        name=preset_name,
        preset=preset,
        classes=[ClassEntry("part", "part")],
        graphs=graph_specs(graphs, "onnx", preset.geometry.size),
        geometry={"points_scale_m": 0.1},
        fusion={"balance": [1.0, 1.0, 1.0]},
        files=files,
    )


def times(session: Any, feed: dict[str, Any], repeats: int) -> float:
    """Median milliseconds of a run, after one that does not count."""
    session.run(feed)
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(feed)
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--valid", type=int, default=18_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    args = parser.parse_args()
    ways = [w for w in WAYS if w[1] != "bf16" or has_bf16()]
    rng = np.random.default_rng(0)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        bundle = make_bundle(Path(temporary), args.preset)
        sample = part_sample(args.valid, bundle.preset.geometry.size)
        maps = {}
        for backend, precision in ways:
            way = f"{backend} {precision}"
            found: dict[str, float] = {}
            for graph in ("rgb", "points"):
                session = load_session(bundle, graph, backend, precision, args.threads)
                scale = 1.0 if graph == "rgb" else 0.05
                feed = {
                    t.name: (rng.standard_normal([int(d) for d in t.shape]) * scale).astype(np.float32)
                    for t in bundle.graph(graph).inputs
                }
                found[graph] = times(session, feed, args.repeats)
            detector = Detector(bundle, backend, precision, args.threads, need_threshold=False)
            maps[way] = detector.score_sample(sample, "part").map[sample.valid]
            results[way] = found
    exact = maps["onnxruntime fp32"]
    rows = []
    base = results["onnxruntime fp32"]
    for way, found in results.items():
        both, before = found["rgb"] + found["points"], base["rgb"] + base["points"]
        correlation = float(np.corrcoef(exact, maps[way])[0, 1])
        found |= {"both": both, "speed_up": before / both, "map_correlation": correlation}
        numbers = (f"{found['rgb']:.1f}", f"{found['points']:.1f}", f"{both:.1f}", f"{before / both:.2f}")
        rows.append((way, *numbers, f"{correlation:.5f}"))
    notes = () if has_bf16() else ("this processor has no bfloat16 instructions: bf16 was not run",)
    columns = ("backend", "colour ms", "points ms", "both ms", "times faster", "map correlation")
    title = f"Encoders of {args.preset}, {args.threads} threads, medians of {args.repeats}"
    output("openvino_bf16", args, {"results": results}, [Table(title, columns, tuple(rows), (), notes)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
