"""Tiny bundles with hand-made graphs, for every test that needs one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_ad.bundle import (
    Bundle,
    ClassEntry,
    GoldenFrame,
    GraphSpec,
    TensorSpec,
    Threshold,
    golden_bytes,
    write_bundle,
)
from edge_ad.bundle.golden import npz_bytes
from edge_ad.frame import Frame, Intrinsics
from edge_ad.presets import load_preset

CLASSES = (ClassEntry("bracket", "a photo of a bracket"), ClassEntry("cap", "a photo of a cap"))
THRESHOLD = Threshold(0.5, 0.4, 20, 0.01, "2025-01-01T00:00:00+00:00")
ONNX_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "float16": TensorProto.FLOAT16}


def mlp(rows: int | str, dims: tuple[int, ...], seed: int = 0) -> tuple[bytes, GraphSpec]:
    """A ReLU MLP ``x (rows, dims[0]) -> y (rows, dims[-1])``: its ONNX bytes and its spec."""
    rng = np.random.default_rng(seed)
    nodes, weights, name = [], [], "x"
    for i, (n, m) in enumerate(zip(dims, dims[1:])):
        w = (rng.standard_normal((n, m)) / np.sqrt(n)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        last = i == len(dims) - 2
        nodes.append(helper.make_node("MatMul", [name, f"w{i}"], ["y" if last else f"h{i}"], name=f"linear{i}"))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"], name=f"relu{i}"))
        name = f"r{i}"
    inputs, outputs = (TensorSpec("x", (rows, dims[0]), "float32"),), (TensorSpec("y", (rows, dims[-1]), "float32"),)
    data = model_bytes(nodes, weights, inputs, outputs)
    return data, GraphSpec("onnx/mlp.onnx", inputs, outputs, {"rows": {"min": 1, "opt": 64, "max": 512}})


def model_bytes(
    nodes: list[Any], weights: list[Any], inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> bytes:
    """Serialised ONNX model, opset 17, checked."""
    infos = [
        [helper.make_tensor_value_info(t.name, ONNX_TYPES[t.dtype], t.shape) for t in ts] for ts in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "tiny", infos[0], infos[1], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def golden_frame(name: str = "part-000", defect: bool = False, seed: int = 0) -> GoldenFrame:
    """A random golden frame with depth, intrinsics and a map."""
    rng = np.random.default_rng(seed)
    frame = Frame(
        colour=rng.integers(0, 255, (12, 16, 3), dtype=np.uint8),
        depth=rng.integers(300, 900, (12, 16), dtype=np.uint16),
        intrinsics=Intrinsics(16, 12, 20.0, 20.0, 8.0, 6.0, (0.1, 0.0, 0.0, 0.0, 0.0)),
        source="synthetic",
        name=name,
        class_name="bracket",
        flags=("repeated",),
    )
    reference = rng.random((8, 8), dtype=np.float32)
    return GoldenFrame(name, frame, "bracket", defect, reference, float(reference.max()))


def tiny_bundle(path: Path, **changes: Any) -> Bundle:
    """Write a bundle with four small MLPs in the places of the four graphs; ``score`` takes any number of rows."""
    sizes: dict[str, tuple[int | str, tuple[int, ...]]] = {
        "rgb": (9, (6, 8, 4)),
        "points": (5, (3, 8, 4)),
        "tokens": (9, (4, 8)),
        "score": ("rows", (8, 16, 3)),
    }
    files: dict[str, bytes | Path] = {}
    graphs = {}
    for i, (name, (rows, dims)) in enumerate(sizes.items()):
        data, spec = mlp(rows, dims, seed=i)
        files[f"onnx/{name}.onnx"] = data
        graphs[name] = GraphSpec(f"onnx/{name}.onnx", spec.inputs, spec.outputs, spec.meta)
    anchors = np.eye(2, 384, dtype=np.float32)
    files["anchors.npz"] = npz_bytes({"anchors": anchors})
    files["scenes/cap.npz"] = npz_bytes({"roi": np.ones((12, 16), bool)})
    for i in range(2):
        golden = golden_frame(f"part-{i:03d}", defect=bool(i), seed=i)
        files[f"golden/{golden.name}.npz"] = golden_bytes(golden)
    fields: dict[str, Any] = {
        "name": "tiny",
        "preset": load_preset("compact"),
        "classes": CLASSES,
        "graphs": graphs,
        "geometry": {"points_scale_m": 0.05},
        "fusion": {"balance": [0.1, 0.2, 0.3]},
        "files": files,
        "provenance": {"data": "hand-made"},
    }
    extra = changes.pop("extra_files", {})
    fields["files"] = {**files, **extra}
    return write_bundle(path, **{**fields, **changes})
