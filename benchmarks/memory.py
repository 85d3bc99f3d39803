"""Resident memory of the runtime process beside the size of its weights, and of the literal reference.

Each is measured in a process of its own, after the bundle (paper's sizes, random weights, float32) was made by
another: the runtime opens it and inspects frames of 50,176 valid pixels; the reference scores the same frame in torch.
``steady`` is what is resident after the last frame, ``peak`` the largest ever (loading included). Shared libraries
count.

    .venv/bin/python benchmarks/memory.py --frames 20 --write
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_ad.evaluation.tables import Table

PIXELS = 224 * 224


def resident() -> dict[str, float]:
    """Resident megabytes (1e6 bytes) now and at most so far."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return {"now": found["VmRSS"], "peak": found["VmHWM"]}


def make_bundle(folder: Path) -> None:
    """A bundle of the paper's sizes with random weights; one class; the whole image is the part."""
    from paper_model import literal_detector, paper_preset

    from edge_ad.bundle import ClassEntry, GraphSpec, write_bundle
    from edge_ad.bundle.golden import npz_bytes
    from edge_ad.export.bundle import trace_graphs
    from edge_ad.export.graphs import score_arrays

    preset = paper_preset()
    preset = replace(preset, geometry=replace(preset.geometry, background="none"))
    detector = literal_detector(preset, classes=1)
    graphs = trace_graphs(detector)
    files: dict[str, bytes | Path] = {f"onnx/{name}.onnx": g.onnx for name, g in graphs.items()}
    files["onnx/score.npz"] = npz_bytes(score_arrays(detector))
    specs = {n: GraphSpec(f"onnx/{n}.onnx", g.inputs, g.outputs) for n, g in graphs.items()}
    write_bundle(
        folder,
        name="paper-random",
        preset=preset,
        classes=[ClassEntry("part", "a photo of a part")],
        graphs=specs,
        geometry={"points_scale_m": 1.0},
        fusion={"balance": [1.0, 1.0, 1.0]},
        files=files,
        provenance={"weights": "random"},
    )


def runtime(folder: Path, frames: int, threads: int) -> dict[str, Any]:
    """Open the bundle and inspect frames, as `edge-ad run` does."""
    from edge_ad.bundle import Bundle
    from edge_ad.frame import Frame
    from edge_ad.runtime.detector import Detector

    imported = resident()
    bundle = Bundle.open(folder)
    weights = sum(
        (bundle.path / bundle.graph_file(name)).stat().st_size / 1e6 for name in ("rgb", "points", "tokens", "score")
    )
    detector = Detector(bundle, threads=threads, need_threshold=False)
    opened = resident()
    with (folder.parent / "frame.npz").open("rb") as file:
        import numpy as np

        arrays = np.load(file, allow_pickle=False)
        frame = Frame(colour=arrays["colour"], xyz=arrays["xyz"], class_name="part")
    history = []
    for _ in range(frames):
        result = detector(frame)
        if result.map is None:
            raise SystemExit(f"the frame was not scored: {result.reasons}")
        history.append(resident()["now"])
    return {"weights_mb": weights, "imported": imported, "opened": opened, "frames_mb": history, "end": resident()}


def reference(folder: Path, threads: int) -> dict[str, Any]:
    """One frame through the literal torch model."""
    import numpy as np
    import torch
    from paper_model import literal_detector, paper_preset, part_sample

    from edge_ad.export.reference import score_reference

    torch.set_num_threads(threads)
    imported = resident()
    with torch.no_grad():
        detector = literal_detector(paper_preset(), classes=1)
        weights = sum(p.numel() for p in detector.parameters()) * 4 / 1e6
        opened = resident()
        for _ in range(2):
            assert np.isfinite(score_reference(detector, part_sample(PIXELS), 1.0, 0).score)
    return {"weights_mb": weights, "imported": imported, "opened": opened, "end": resident()}


def child(what: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a fresh process."""
    command = [sys.executable, __file__, "--child", what, "--work", str(folder)]
    command += ["--frames", str(args.frames), "--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return out


def table(found: dict[str, dict[str, Any]]) -> Table:
    weights = found["runtime"]["weights_mb"]
    rows = []
    for name, d in found.items():
        steady, peak = d["end"]["now"], d["end"]["peak"]
        rows.append((
            name, f"{d['weights_mb']:.0f}", f"{d['imported']['now']:.0f}", f"{d['opened']['now']:.0f}",
            f"{steady:.0f}", f"{peak:.0f}", f"{steady / weights:.2f}", f"{peak / weights:.2f}",
        ))  # fmt: skip
    return Table(
        "resident memory, paper preset, float32, MB (1e6 bytes)",
        ("process", "weights", "imported", "opened", "steady", "peak", "steady / weights", "peak / weights"),
        tuple(rows),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder that keeps the bundle (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == "make":
        make_bundle(args.work / "bundle")
        print("{}")
        return 0
    if args.child:
        found = (
            runtime(args.work / "bundle", args.frames, args.threads)
            if args.child == "runtime"
            else reference(args.work / "bundle", args.threads)
        )
        print(json.dumps(found))
        return 0
    from paper_model import output, part_sample

    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        import numpy as np

        sample = part_sample(PIXELS)
        colour = np.random.default_rng(1).integers(0, 255, (224, 224, 3), dtype=np.uint8)
        np.savez(work / "frame.npz", colour=colour, xyz=sample.xyz)
        if not (work / "bundle").exists():
            child("make", work, args)
        results = {"runtime": child("runtime", work, args), "literal reference": child("reference", work, args)}
    output("memory", args, results, [table(results)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
