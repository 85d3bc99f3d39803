"""A variant's share of a bundle: its graphs, its answers to the golden frames, its entry in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_ad.bundle import GoldenFrame, GraphSpec, VariantEntry
from edge_ad.bundle.golden import npz_bytes
from edge_ad.errors import EdgeAdError
from edge_ad.export.counts import count
from edge_ad.export.golden import make_golden
from edge_ad.export.graphs import score_arrays
from edge_ad.export.trace import TracedGraph
from edge_ad.frame import Frame
from edge_ad.training.model_dir import LoadedModel

USUAL_ROWS = 4096


@dataclass(frozen=True)
class VariantParts:
    """What a variant adds to a bundle: files by path, its manifest entry, and the references it is held against."""

    files: dict[str, bytes]
    entry: VariantEntry
    references: list[GoldenFrame]


def graph_specs(graphs: Mapping[str, TracedGraph], folder: str, size: int) -> dict[str, GraphSpec]:
    """Specs of the four graphs in ``folder``, with what ``profile`` counts and the row bounds that engines need."""
    out = {}
    for name, g in graphs.items():
        meta: dict[str, Any] = {"nodes": g.nodes, "parameters": g.parameters}
        if name == "score":
            meta["rows"] = {"min": 1, "opt": USUAL_ROWS, "max": size**2}
            meta["counts"] = {**count(g.onnx, USUAL_ROWS), "rows": USUAL_ROWS}
        else:
            meta["counts"] = count(g.onnx)
        out[name] = GraphSpec(f"{folder}/{name}.onnx", g.inputs, g.outputs, meta)
    return out


def anchors_bytes(model: LoadedModel) -> bytes | None:
    """``anchors.npz`` of a model, or None without text."""
    if not model.detector.mappers.has_text:
        return None
    anchors = torch.nn.functional.normalize(model.detector.anchors, dim=1).numpy()
    return npz_bytes({"anchors": np.asarray(anchors, np.float32)})


def variant_parts(
    name: str,
    model: LoadedModel,
    base: LoadedModel,
    graphs: Mapping[str, TracedGraph],
    frames: Sequence[tuple[Frame, str]],
) -> VariantParts:
    """Everything of one variant, with its own reference answers to ``frames``.

    Raises
    ------
    EdgeAdError
        The variant was fitted on other classes than the base model.
    """
    if model.class_names != base.class_names:
        raise EdgeAdError(
            f"variant {name} knows the classes {', '.join(model.class_names)}",
            f"{', '.join(base.class_names)}, those of the base model",
            "fit them together: edge-ad fit --variants",
        )
    references = make_golden(frames, model.detector, model.preprocessor(), model.class_names, model.points_scale_m)
    files = {f"onnx/{name}/{graph}.onnx": g.onnx for graph, g in graphs.items()}
    files[f"onnx/{name}/score.npz"] = npz_bytes(score_arrays(model.detector))
    answers: dict[str, Any] = {}
    for r in references:
        answers[f"{r.name}.map"] = r.map
        answers[f"{r.name}.score"] = np.float64(r.score)
    files[f"variants/{name}/golden.npz"] = npz_bytes(answers)
    anchors = anchors_bytes(model)
    if anchors is not None:
        files[f"variants/{name}/anchors.npz"] = anchors
    entry = VariantEntry(
        changes=str(model.provenance.get("changes", "")),
        preset=model.preset,
        geometry={"points_scale_m": model.points_scale_m},
        fusion={"balance": [float(v) for v in model.detector.balance]},
        graphs=graph_specs(graphs, f"onnx/{name}", model.preset.geometry.size),
        provenance=model.provenance,
    )
    return VariantParts(files, entry, references)
