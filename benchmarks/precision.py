"""FP16 and INT8 against float32, in the task's own metrics.

One table over the test split: float32, FP16 on the rounding twin, INT8 (the files themselves, in ONNX Runtime) with
every layer, without the few that cost most (the default), and after --max-drop. Parts are read and cut once, and
float32's tokens kept. Then the size of the TensorRT-RTX plans, built without a GPU for SM 8.6, 8.9 and 12.0; --random
paper builds a preset's graphs with random weights instead of a bundle's.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import common
from steps import Steps

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import parts_to_measure
from edge_ad.calibration.int8.outcome import Outcome
from edge_ad.calibration.int8.probe import STRIDE, Probe
from edge_ad.cli.common import progress
from edge_ad.data.dataset import open_dataset
from edge_ad.evaluation.tables import Table
from edge_ad.runtime.backends import Session

CAPABILITIES = ("8.6", "8.9", "12.0")
BEFORE, AFTER = "int8", "int8, --max-drop"
ALLOWED = {"fp16": 0.1, BEFORE: 0.3, AFTER: 0.3}


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


def copy_of(bundle: Path, place: Path) -> Path:
    """A copy without engines; the bundle that was given is not changed."""
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(bundle, place, ignore=shutil.ignore_patterns("engines"))
    return place


def sessions_of(probe: Probe, bundle: Bundle, precision: str) -> dict[str, Session]:
    """A precision's own files in ONNX Runtime; FP16's as their rounding twins."""
    from edge_ad.export.precision.twin import rounding_twin

    def model(graph: str) -> bytes | Path:
        path = bundle.graph_path(graph, precision)
        return rounding_twin(path, graph).onnx if precision == "fp16" else path

    return {graph: probe.replay.session(graph, model(graph)) for graph in bundle.manifest.graphs}


def accuracy(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], list[Table]]:
    """Calibrate copies of the bundle, and run the test split through the files of every precision."""
    every, bundle = (copy_of(args.bundle, work / name) for name in ("every", "bundle"))
    shared = ["--data", args.data, "--jobs", args.jobs, "--frames", args.frames]
    steps.edge_ad("fp16", "FP16 graphs", "calibrate", "fp16", bundle, *shared)
    int8 = [*shared, "--method", args.method]
    steps.edge_ad("int8-every-layer", "INT8, every layer", "calibrate", "int8", every, *int8, "--every-layer")
    limits = ["--max-drop", args.max_drop, "--parts", args.parts, "--picture", args.results / "precision.png"]
    report = steps.edge_ad("int8-max-drop", "INT8 with --max-drop", "calibrate", "int8", bundle, *int8, *limits)

    steps.begin("the test split in every precision", f"every {args.stride}. pixel scored")
    data = open_dataset(args.data)
    opened = Bundle.open(bundle)
    start = time.monotonic()
    items = parts_to_measure(opened, data, args.parts)
    probe = Probe(opened, items, jobs=args.jobs, stride=args.stride, track=progress)
    base = probe.base()
    found = {"float32": base}
    sides = (("fp16", opened, "fp16"), ("int8, every layer", Bundle.open(every), "int8"), (AFTER, opened, "int8"))
    for name, side, precision in progress(sides, len(sides), "precisions"):
        found[name] = probe.outcome_of(sessions_of(probe, side, precision))
    steps.seconds["test split"] = round(time.monotonic() - start, 1)
    found[BEFORE] = Outcome(**{k: v for k, v in report["sensitivity"]["all_int8"].items() if not k.startswith("drop")})
    order = ("float32", "fp16", "int8, every layer", BEFORE, AFTER)
    drops = {n: found[n].drop_and_error(base) for n in order}
    rows = tuple(
        (
            name,
            *(f"{100 * (v or 0):.2f}" for v in (found[name].i_auroc, found[name].aupro_30)),
            *(f"{v:+.2f}" for v in (drops[name][0], *(100 * d for d in _lost(base, found[name])))),
            f"{drops[name][1]:.2f}",
            f"{found[name].map_error:.4f}",
            f"{ALLOWED[name]:.1f}" if name in ALLOWED else "",
        )
        for name in order
    )
    heads = (
        *("precision", "I-AUROC", "AUPRO@30 %", "drop, points", "of I-AUROC", "of AUPRO", "standard error"),
        *("map error", "allowed"),
    )
    classes = len({i.class_name for i in items})
    blocks, spared = report["sensitivity"]["blocks"], report["spared"]
    left = sum(b["left_in_fp16"] for b in blocks)
    costs = tuple(
        (
            f"{b['graph']} {b['block']}",
            str(b["layers"]),
            *(f"{b[k]:+.3f}" for k in ("drop", "drop_se")),
            f"{b['correlation']:.5f}",
            f"{b['map_error']:.4f}",
            "yes" if b["left_in_fp16"] else "",
        )
        for b in blocks
    )
    layers = sorted((x for x in spared["layers"] if x["left_in_fp16"]), key=lambda x: -x["map_error"])
    tables = [
        Table(f"Precision: mean over {classes} classes, {base.parts} test parts", heads, rows),
        Table(
            f"Layers that stay FP16 for their cost ({len(layers)} of {len(spared['layers'])}), each alone in INT8",
            ("layer", "map error", "graph error"),
            tuple((f"{x['graph']} {x['layer']}", f"{x['map_error']:.4f}", f"{x['graph_error']:.4f}") for x in layers),
        ),
        Table(
            f"Blocks of what is left alone in INT8, the costliest first ({left} of {len(blocks)} left in FP16)",
            ("block", "layers", "drop, points", "+-", "map correlation", "map error", "left in FP16"),
            costs,
        ),
    ]
    document = {
        "outcomes": {n: found[n].to_json() | {"drop": drops[n][0], "drop_se": drops[n][1]} for n in order},
        "within": {n: drops[n][0] <= allowed for n, allowed in ALLOWED.items()},
        "spared": spared,
        "sensitivity": report["sensitivity"],
    }
    return document, tables


def _lost(base: Outcome, found: Outcome) -> tuple[float, float]:
    pairs = ((base.i_auroc, found.i_auroc), (base.aupro_30, found.aupro_30))
    first, second = ((a or 0.0) - (b or 0.0) for a, b in pairs)
    return first, second


def plans(graphs: dict[str, dict[str, Path]]) -> tuple[dict[str, Any], Table]:
    """Bytes of the plans as they are kept: precision -> graph -> ONNX file; the largest of the targets."""
    from edge_ad.engines.packing import pack
    from edge_ad.engines.trt import BuildOptions, build_plan

    sizes: dict[str, dict[str, int]] = {}
    for precision, files in graphs.items():
        for name, path in files.items():
            built = []
            for capability in CAPABILITIES:
                major, minor = (int(c) for c in capability.split("."))
                plan = build_plan("tensorrt-rtx", path, BuildOptions(capabilities=((major, minor),)))
                built.append(len(pack(name, plan.data)[1]))
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
    table = Table(f"TensorRT-RTX plans on disk, the largest of SM {', '.join(CAPABILITIES)}", heads, rows)
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
    parser.add_argument("--method", default="mse")
    parser.add_argument("--frames", type=int, default=64, help="frames to calibrate on")
    parser.add_argument("--max-drop", type=float, default=0.2)
    parser.add_argument("--parts", type=int, default=0, help="test parts a class; 0: all")
    parser.add_argument("--stride", type=int, default=STRIDE, help="every so many-th pixel is scored; 1: every one")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--no-plans", action="store_true")
    args = parser.parse_args()
    if not args.random and (args.bundle is None or args.data is None):
        parser.error("--bundle and --data, or --random")
    name = f"precision_plans_{args.random}" if args.random else "precision"
    return common.finish(name, args, 0 if args.random else 4, body)


if __name__ == "__main__":
    sys.exit(main())
