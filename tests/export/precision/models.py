"""Small float32 graphs made by hand, and a run in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
) -> ModelProto:
    """A checked model, opset 17, all inputs and outputs float32."""
    infos = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in each.items()] for each in (inputs, outputs)
    ]
    graph = helper.make_graph(
        nodes, "small", infos[0], infos[1], [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def block(width: int = 64, seed: int = 0) -> ModelProto:
    """``x (8, width) -> y (8, width)``: LayerNorm, Linear, ReLU, Linear, residual."""
    rng = np.random.default_rng(seed)
    weights = {
        "norm.weight": np.ones(width, np.float32),
        "norm.bias": np.zeros(width, np.float32),
        "fc1.weight": (rng.standard_normal((width, 2 * width)) / np.sqrt(width)).astype(np.float32),
        "fc1.bias": rng.standard_normal(2 * width).astype(np.float32) * np.float32(0.1),
        "fc2.weight": (rng.standard_normal((2 * width, width)) / np.sqrt(2 * width)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "norm.weight", "norm.bias"], ["n"], name="norm"),
        helper.make_node("Gemm", ["n", "fc1.weight", "fc1.bias"], ["h"], name="/blocks.0/mlp/fc1/Gemm"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "fc2.weight"], ["m"], name="/blocks.0/mlp/fc2/MatMul"),
        helper.make_node("Add", ["m", "x"], ["y"], name="residual"),
    ]
    return model(nodes, weights, {"x": [8, width]}, {"y": [8, width]})


def by_class(classes: int, seed: int = 0, width: int = 24) -> tuple[bytes, dict[str, np.ndarray]]:
    """What the export makes of ``mappers.condition = "class"``: whitening of strongly correlated channels, a layer."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.standard_normal((width, width)))[0] * np.geomspace(30, 0.02, width)
    tokens = (rng.standard_normal((40, width)) @ mix.T + 2).astype(np.float32)
    turns = np.stack([np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(classes)])
    weight = (turns @ np.linalg.inv(mix)).astype(np.float32)
    offset = (-weight @ np.full(width, 2, np.float32)).astype(np.float32)
    layer = rng.standard_normal((64, width)).astype(np.float32)
    values = {"point_weight": weight, "point_offset": offset, "fc.weight": layer, "zero": np.array(0, np.int64)}
    nodes = [
        *(
            helper.make_node("Gather", [f"point_{w}", "class_index"], [f"{w}_of"], f"g{w}")
            for w in ("weight", "offset")
        ),
        *(helper.make_node("Gather", [f"{w}_of", "zero"], [f"{w}_own"], f"h{w}") for w in ("weight", "offset")),
        helper.make_node("Gemm", ["tokens", "weight_own", "offset_own"], ["x"], "standardise", transB=1),
        helper.make_node("Gemm", ["x", "fc.weight"], ["table"], "fc", transB=1),
    ]
    f = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("tokens", f, [40, width]),
        helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]),
    ]
    out = [helper.make_tensor_value_info("table", f, [40, 64])]
    weights = [numpy_helper.from_array(v, n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "tokens", inputs, out, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(), {"tokens": tokens, "class_index": np.array([1], np.int64)}


def run(data: bytes | ModelProto | Path, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of one run on the CPU."""
    source = data.SerializeToString() if isinstance(data, ModelProto) else data
    session = ort.InferenceSession(
        str(source) if isinstance(source, Path) else source, providers=["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feed)))


def types(data: bytes) -> dict[str, int]:
    """Element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    graph = inferred.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def plant_overflow(path: Path, after: str) -> None:
    """Behind the first node whose name ends so: times 1e8 in two steps and back. Equal in float32, infinite in FP16."""
    found = onnx.load(path)
    at = next(i for i, n in enumerate(found.graph.node) if n.name.endswith(after))
    tensor = found.graph.node[at].output[0]
    found.graph.node[at].output[0] = "planted"
    steps = [("up1", 1e4, "planted"), ("up2", 1e4, "up1"), ("down1", 1e-4, "up2"), ("down2", 1e-4, "down1")]
    for i, (name, factor, source) in enumerate(steps):
        found.graph.initializer.append(numpy_helper.from_array(np.float32(factor).reshape(()), f"factor_{name}"))
        result = tensor if name == "down2" else name
        found.graph.node.insert(
            at + 1 + i, helper.make_node("Mul", [source, f"factor_{name}"], [result], name=f"plant_{name}")
        )
    onnx.checker.check_model(found)
    onnx.save(found, path)
