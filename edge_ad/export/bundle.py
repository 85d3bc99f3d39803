"""Export: the four graphs, golden frames and the rest of a bundle, held against the reference before it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edge_ad.bundle import Bundle, ClassEntry, GraphSpec, golden_bytes, write_bundle
from edge_ad.bundle.golden import npz_bytes
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.export.golden import make_golden, worst_difference
from edge_ad.export.graphs import PointGraph, RgbGraph, ScoreGraph, TokenGraph, column_widths
from edge_ad.export.trace import TracedGraph, trace
from edge_ad.files import sweep, take_place, temporary
from edge_ad.frame import Frame
from edge_ad.models.detector import ReferenceDetector
from edge_ad.runtime.detector import Detector
from edge_ad.training.model_dir import LoadedModel

TOLERANCE = 1e-4
"""Largest difference of the exported float32 map (relative to its maximum) and score from the torch reference."""


@dataclass(frozen=True)
class ExportReport:
    """What was written: nodes and bytes a graph, and the worst difference from the reference over the golden frames."""

    bundle: Bundle
    graphs: dict[str, TracedGraph]
    map_difference: float
    score_difference: float


def trace_graphs(detector: ReferenceDetector) -> dict[str, TracedGraph]:
    """Trace the four graphs of DESIGN.md at the preset's sizes; only the number of scored rows is free."""
    p = detector.preset
    size, grid = p.geometry.size, p.rgb.grid
    groups, k = p.points.groups, p.points.group_size
    rgb_widths, point_widths = column_widths(detector)
    score_inputs = ["rgb_rows", "point_rows"]
    score_args = [torch.randn(64, sum(rgb_widths)), torch.randn(64, sum(point_widths))]
    score_outputs = ["rgb", "3d"]
    if detector.mappers.has_text:
        score_inputs.append("class_index")
        score_args.append(torch.zeros(1, dtype=torch.int64))
        score_outputs += ["text_rgb", "text_3d"]
    return {
        "rgb": trace(RgbGraph(detector), [torch.randn(1, 3, size, size)], ["image"], ["rgb_tokens"]),
        "points": trace(
            PointGraph(detector),
            [torch.randn(1, groups, k, 3) * 0.05, torch.randn(1, groups, 3)],
            ["groups", "centers"],
            ["point_tokens"],
        ),
        "tokens": trace(
            TokenGraph(detector),
            [torch.randn(grid * grid, p.dim_rgb), torch.randn(groups, p.dim_points)],
            ["rgb_tokens", "point_tokens"],
            ["rgb_table", "point_table"],
        ),
        "score": trace(
            ScoreGraph(detector),
            score_args,
            score_inputs,
            score_outputs,
            rows=["rgb_rows", "point_rows", *score_outputs],
        ),
    }


def golden_frames(data: Dataset, classes: Sequence[str], count: int) -> list[tuple[Frame, str]]:
    """Up to ``count`` good frames, spread over the classes; held-out ones where there are any.

    Raises
    ------
    EdgeAdError
        The data set has no readable good frame of any of the classes.
    """
    chosen: list[tuple[Frame, str]] = []
    for turn in range(count):
        for name in classes:
            items = data.select(name, "validation", "good") or data.select(name, "train", "good")
            items = items or data.select(name, "test", "good")
            if len(chosen) < count and turn < len(items):
                try:
                    chosen.append((items[turn].frame(), name))
                except InvalidFrame:
                    continue
    if not chosen:
        raise EdgeAdError(
            f"{data.root} has no good frame of {', '.join(classes)}", "the data that the model was fitted on"
        )
    return chosen


def export_bundle(
    model: LoadedModel,
    out: Path,
    data: Dataset,
    *,
    golden: int = 4,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a bundle and hold it against the torch reference.

    Parameters
    ----------
    data : good frames for the golden set. golden : how many; each also gets a planted defect.
    say : receives a line a step.

    Raises
    ------
    EdgeAdError
        A graph cannot be traced, or the exported model differs from the reference by more than :data:`TOLERANCE`; then
        no bundle is left behind.
    """
    if out.exists() and not replace:
        raise EdgeAdError(f"{out} exists already", "a new folder", "name another one or pass --force")
    detector, preset = model.detector, model.preset
    say("tracing the graphs")
    graphs = trace_graphs(detector)
    say("golden frames through the reference")
    references = make_golden(
        golden_frames(data, model.class_names, max(golden, min(len(model.classes), 8))),
        detector,
        model.preprocessor(),
        model.class_names,
        model.points_scale_m,
    )
    files: dict[str, bytes | Path] = {f"onnx/{name}.onnx": g.onnx for name, g in graphs.items()}
    files |= {f"golden/{g.name}.npz": golden_bytes(g) for g in references}
    if detector.mappers.has_text:
        anchors = torch.nn.functional.normalize(detector.anchors, dim=1).numpy()
        files["anchors.npz"] = npz_bytes({"anchors": np.asarray(anchors, np.float32)})
    for name, scene in model.scenes.items():
        arrays = {"roi": scene.roi, "expected_depth": scene.expected_depth}
        known = {k: v for k, v in arrays.items() if v is not None}
        if known:
            files[f"scenes/{name}.npz"] = npz_bytes(known)
    specs = {
        name: GraphSpec(f"onnx/{name}.onnx", g.inputs, g.outputs, {"nodes": g.nodes, "parameters": g.parameters})
        for name, g in graphs.items()
    }
    specs["score"] = GraphSpec(
        "onnx/score.onnx",
        graphs["score"].inputs,
        graphs["score"].outputs,
        {**specs["score"].meta, "rows": {"min": 1, "opt": 4096, "max": preset.geometry.size**2}},
    )
    # The bundle gets its own name only once its answers were held against the reference.
    sweep(out.parent, out.name)
    draft = temporary(out)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        bundle = write_bundle(
            draft,
            name=out.name,
            preset=preset,
            classes=[ClassEntry(c.name, c.prompt) for c in model.classes],
            graphs=specs,
            geometry={"points_scale_m": model.points_scale_m},
            fusion={"balance": [float(v) for v in detector.balance]},
            files=files,
            provenance=model.provenance,
        )
        say("holding the exported graphs against the reference")
        worst_map, worst_score = compare(bundle, references)
        if max(worst_map, worst_score) > TOLERANCE:
            raise EdgeAdError(
                f"the exported model differs from the reference by {worst_map:.1e} (map) and {worst_score:.1e} (score)",
                f"at most {TOLERANCE:.0e}",
                "report this model; no bundle was written",
            )
        take_place(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return ExportReport(Bundle.open(out), graphs, worst_map, worst_score)


def compare(bundle: Bundle, references: Sequence, backend: str = "onnxruntime") -> tuple[float, float]:  # type: ignore[type-arg]
    """Worst relative difference of map and score over golden frames, through the runtime's own path."""
    runtime = Detector(bundle, backend, need_threshold=False)
    worst_map = worst_score = 0.0
    for golden in references:
        sample = runtime.preprocess(golden.frame, golden.class_name).samples[0]
        scored = runtime.score_sample(sample, golden.class_name)
        worst_map = max(worst_map, worst_difference(scored.map, golden.map))
        worst_score = max(worst_score, abs(scored.score - golden.score) / max(abs(golden.score), 1e-12))
    return worst_map, worst_score
