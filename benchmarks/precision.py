"""FP16 and INT8 against float32, in the task's own metrics.

One table over the test split: float32, FP16 on the rounding twin, INT8 (the bundle's own file, in ONNX Runtime) with
every layer that INT8 is for, and INT8 after --max-drop. Then the size of the TensorRT-RTX plans, built without a GPU
for SM 8.6, 8.9 and 12.0; --random paper builds a preset's graphs with random weights instead of a bundle's.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import common
from steps import Steps

from edge_ad.bundle import Bundle
from edge_ad.evaluation.tables import Table

METRICS = ("i_auroc", "aupro_30", "p_auroc", "aupro_1")
TITLES = ("I-AUROC", "AUPRO@30 %", "P-AUROC", "AUPRO@1 %")
CAPABILITIES = ("8.6", "8.9", "12.0")
ALLOWED = {"fp16": 0.1, "int8": 0.3, "int8, --max-drop": 0.3}


def random_graphs(preset_name: str) -> dict[str, bytes]:
    """The four graphs of a preset with random weights where its own are not at hand, for plans alone."""
    import torch

    from edge_ad.export.bundle import trace_graphs
    from edge_ad.models.build import assemble
    from edge_ad.models.detector import ReferenceDetector
    from edge_ad.presets import load_preset

    preset = load_preset(preset_name)
    if preset.rgb.checkpoint != "package":
        preset = dataclasses.replace(
            preset,
            rgb=dataclasses.replace(preset.rgb, checkpoint="random"),
            points=dataclasses.replace(preset.points, checkpoint="random"),
        )
    torch.manual_seed(0)
    detector = ReferenceDetector(preset, *assemble(preset), 3)
    detector.anchors.normal_()
    return {name: graph.onnx for name, graph in trace_graphs(detector).items()}


def accuracy(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], list[Table]]:
    """Both calibrations and four evaluations of a copy of the bundle."""
    bundle = work / "bundle"
    if bundle.exists():
        shutil.rmtree(bundle)
    shutil.copytree(args.bundle, bundle, ignore=shutil.ignore_patterns("engines"))
    shared = ["--data", args.data, "--jobs", args.jobs]
    test = [*shared, "--no-baseline", "--limit", args.limit]
    found: dict[str, dict[str, Any]] = {}

    def evaluate(name: str, precision: str) -> None:
        found[name] = steps.edge_ad(
            f"evaluate-{name}", f"evaluate {name}", "evaluate", bundle, *test, "--precision", precision
        )

    evaluate("float32", "fp32")
    steps.edge_ad("fp16", "FP16 graphs", "calibrate", "fp16", bundle, "--data", args.data, "--frames", args.frames)
    evaluate("fp16", "fp16")
    int8 = ["calibrate", "int8", bundle, *shared, "--frames", args.frames, "--method", args.method]
    before = steps.edge_ad("int8", "INT8 graphs", *int8)
    evaluate("int8", "int8")
    sheet = args.results / "precision.png"
    after = steps.edge_ad(
        "int8-max-drop",
        "INT8 with --max-drop",
        *int8,
        *("--max-drop", args.max_drop, "--parts", args.parts, "--picture", sheet),
    )
    evaluate("int8, --max-drop", "int8")
    base = found["float32"]["mean"]
    rows: list[tuple[str, ...]] = []
    drops: dict[str, float] = {}
    for name, report in found.items():
        mean = report["mean"]
        drops[name] = max(100 * (base[k] - mean[k]) for k in METRICS[:2] if base[k] is not None)
        cells = ["-" if mean[k] is None else f"{100 * mean[k]:.2f}" for k in METRICS]
        rows.append((name, *cells, f"{drops[name]:+.2f}", f"{ALLOWED[name]:.1f}" if name in ALLOWED else ""))
    classes = len(found["float32"]["classes"])
    heads = ("precision", *TITLES, "drop, points", "allowed")
    blocks = after["sensitivity"]["blocks"]
    left = sum(b["left_in_fp16"] for b in blocks)
    costs = tuple(
        (
            f"{b['graph']} {b['block']}",
            str(b["layers"]),
            f"{b['drop']:+.3f}",
            f"{b['correlation']:.5f}",
            f"{b['map_error']:.4f}",
            "yes" if b["left_in_fp16"] else "",
        )
        for b in blocks
    )
    tables = [
        Table(f"Precision: mean over {classes} classes", heads, tuple(rows)),
        Table(
            f"Blocks alone in INT8, the costliest first ({left} of {len(blocks)} left in FP16)",
            ("block", "layers", "drop, points", "map correlation", "map error", "left in FP16"),
            costs,
        ),
    ]
    document = {
        "mean": {n: r["mean"] for n, r in found.items()},
        "drop": drops,
        "within": {n: drops[n] <= allowed for n, allowed in ALLOWED.items()},
        "bytes": before["bytes"],
        "sensitivity": after["sensitivity"],
    }
    return document, tables


def plans(graphs: dict[str, dict[str, Path]]) -> tuple[dict[str, Any], Table]:
    """Bytes of the plans: precision -> graph -> ONNX file; the largest of the targets."""
    from edge_ad.engines.trt import BuildOptions, build_plan

    sizes: dict[str, dict[str, int]] = {}
    for precision, files in graphs.items():
        for name, path in files.items():
            built = []
            for capability in CAPABILITIES:
                major, minor = (int(c) for c in capability.split("."))
                plan = build_plan("tensorrt-rtx", path, BuildOptions(capabilities=((major, minor),)))
                built.append(len(plan.data))
            sizes.setdefault(precision, {})[name] = max(built)
    total = {p: sum(s.values()) for p, s in sizes.items()}
    files = {p: sum(f.stat().st_size for f in g.values()) for p, g in graphs.items()}
    rows = tuple(
        (
            precision,
            *(f"{s / 1e6:.2f}" for s in sizes[precision].values()),
            f"{total[precision] / 1e6:.2f}",
            f"{total[precision] / total['fp32']:.2f}",
            f"{files[precision] / files['fp32']:.2f}",
        )
        for precision in graphs
    )
    heads = ("precision", *(f"{g}, MB" for g in graphs["fp32"]), "plans, MB", "of float32", "ONNX, of float32")
    table = Table(f"TensorRT-RTX plans, the largest of SM {', '.join(CAPABILITIES)}", heads, rows)
    return {"plan_bytes": sizes, "onnx_bytes": files}, table


def with_precisions(floats: dict[str, bytes], work: Path) -> dict[str, dict[str, Path]]:
    """Float32, FP16 and INT8 files of graphs; one range for every layer, which does not matter to a builder."""
    from edge_ad.export.precision.fp16 import cast_fp16
    from edge_ad.export.precision.graph import Graph
    from edge_ad.export.precision.int8 import to_int8
    from edge_ad.export.precision.roles import kept_by_rule, quantisable

    out: dict[str, dict[str, Path]] = {"fp32": {}, "fp16": {}, "int8": {}}
    for name, data in floats.items():
        keep = kept_by_rule(Graph(data, name))
        ranges = {layer.name: 4.0 for layer in quantisable(Graph(data, name))}
        made = {
            "fp32": data,
            "fp16": cast_fp16(Graph(data, name), keep),
            "int8": to_int8(Graph(data, name), ranges, keep),
        }
        for precision, graph in made.items():
            out[precision][name] = work / f"{name}.{precision}.onnx"
            out[precision][name].write_bytes(graph)
    return out


def body(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], Sequence[Table]]:
    """Accuracy where there is a bundle, then the plans."""
    document: dict[str, Any] = {}
    tables: list[Table] = []
    with tempfile.TemporaryDirectory() as scratch:
        if args.random:
            graphs = with_precisions(random_graphs(args.random), Path(scratch))
        else:
            document, tables = accuracy(args, steps, work)
            opened = Bundle.open(work / "bundle")
            names = list(opened.manifest.graphs)
            graphs = {p: {g: opened.graph_path(g, p) for g in names} for p in ("fp32", "fp16", "int8")}
        if not args.no_plans:
            sizes, table = plans(graphs)
            document |= sizes
            tables.append(table)
    return document, tables


def main() -> int:
    """Command line."""
    parser = common.parser(__doc__, parts=False)
    parser.add_argument("--bundle", type=Path, help="a fitted bundle; it is copied, not changed")
    parser.add_argument("--data", type=Path, help="its parts, with a test split")
    parser.add_argument("--random", choices=("compact", "paper"), help="plans of a preset with random weights instead")
    parser.add_argument("--method", default="entropy")
    parser.add_argument("--frames", type=int, default=64, help="frames to calibrate on")
    parser.add_argument("--max-drop", type=float, default=0.2)
    parser.add_argument("--parts", type=int, default=48, help="parts a class on which blocks are measured")
    parser.add_argument("--limit", type=int, default=0, help="at most so many test parts a class and defect; 0: all")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--no-plans", action="store_true")
    args = parser.parse_args()
    if not args.random and (args.bundle is None or args.data is None):
        parser.error("--bundle and --data, or --random")
    name = f"precision_plans_{args.random}" if args.random else "precision"
    return common.finish(name, args, 0 if args.random else 7, body)


if __name__ == "__main__":
    sys.exit(main())
