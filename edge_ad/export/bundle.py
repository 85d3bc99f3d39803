"""Export: the four graphs, golden frames and the rest of a bundle, held against the reference before it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edge_ad.bundle import Bundle, ClassEntry, golden_bytes, write_bundle
from edge_ad.bundle.golden import npz_bytes
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.export.golden import make_golden, worst_difference
from edge_ad.export.graphs import PointGraph, RgbGraph, ScoreGraph, score_arrays
from edge_ad.export.levels import token_graph
from edge_ad.export.trace import TracedGraph, trace
from edge_ad.export.turned import column_widths
from edge_ad.export.variants import VariantParts, anchors_bytes, graph_specs, variant_parts
from edge_ad.files import sweep, take_place, temporary
from edge_ad.frame import Frame
from edge_ad.models.detector import ReferenceDetector
from edge_ad.runtime.backends import load_session
from edge_ad.runtime.detector import Detector, Stopwatch
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
    tokens, token_outputs = token_graph(detector)
    token_inputs = ["rgb_tokens", "point_tokens"]
    token_args = [torch.randn(grid * grid, p.dim_rgb), torch.randn(groups, p.dim_points)]
    if detector.conditions is not None:
        token_inputs.append("class_index")
        token_args.append(torch.zeros(1, dtype=torch.int64))
    return {
        "rgb": trace(RgbGraph(detector), [torch.randn(1, 3, size, size)], ["image"], ["rgb_tokens"]),
        "points": trace(
            PointGraph(detector),
            [torch.randn(1, groups, k, 3) * 0.05, torch.randn(1, groups, 3)],
            ["groups", "centers"],
            ["point_tokens"],
        ),
        "tokens": trace(tokens, token_args, token_inputs, token_outputs),
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
    variants: Mapping[str, LoadedModel] | None = None,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Write a bundle and hold it against the torch reference.

    Parameters
    ----------
    data : good frames for the golden set. golden : how many; each also gets a planted defect.
    variants : models of other sizes that the bundle carries too, by name. say : receives a line a step.

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
    frames = golden_frames(data, model.class_names, max(golden, min(len(model.classes), 8)))
    references = make_golden(
        frames,
        detector,
        model.preprocessor(),
        model.class_names,
        model.points_scale_m,
    )
    files: dict[str, bytes | Path] = {f"onnx/{name}.onnx": g.onnx for name, g in graphs.items()}
    files["onnx/score.npz"] = npz_bytes(score_arrays(detector))  # for the compiled scoring stage, beside its graph
    files |= {f"golden/{g.name}.npz": golden_bytes(g) for g in references}
    anchors = anchors_bytes(model)
    if anchors is not None:
        files["anchors.npz"] = anchors
    for name, scene in model.scenes.items():
        setup = None if scene.setup is None else scene.setup.to_array()
        arrays = {"roi": scene.roi, "expected_depth": scene.expected_depth, "setup": setup}
        known = {k: v for k, v in arrays.items() if v is not None}
        if known:
            files[f"scenes/{name}.npz"] = npz_bytes(known)
    specs = graph_specs(graphs, "onnx", preset.geometry.size)
    others: dict[str, VariantParts] = {}
    for name, other in (variants or {}).items():
        say(f"variant {name}: {other.provenance.get('changes', '')}")
        others[name] = variant_parts(name, other, model, trace_graphs(other.detector), frames)
        files |= others[name].files
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
            variants={name: parts.entry for name, parts in others.items()},
        )
        say("holding the exported graphs against the reference")
        worst_map, worst_score = compare(bundle, references)
        for name, parts in others.items():
            apart = compare(bundle.as_variant(name), parts.references)
            worst_map, worst_score = max(worst_map, apart[0]), max(worst_score, apart[1])
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
    """Worst relative difference of map and score over golden frames, through the runtime's own path.

    Both forms of the scoring stage are held against the reference: the compiled one and the graph.
    """
    runtime = Detector(bundle, backend, need_threshold=False)
    stages = [runtime.sessions["score"], load_session(bundle, "score", backend)]
    worst_map = worst_score = 0.0
    for golden in references:
        sample = runtime.preprocess(golden.frame, golden.class_name).samples[0]
        watch = Stopwatch()
        encoded = runtime.encode_part(runtime.prepare_part(sample, watch), watch, golden.class_name)
        for stage in stages:
            runtime.sessions["score"] = stage
            scored = runtime.score_part(encoded, golden.class_name, watch)
            worst_map = max(worst_map, worst_difference(scored.map, golden.map))
            worst_score = max(worst_score, abs(scored.score - golden.score) / max(abs(golden.score), 1e-12))
    return worst_map, worst_score
