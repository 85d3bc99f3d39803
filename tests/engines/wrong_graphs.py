"""What a miscompiled engine looks like: a bundle's graph with changed weights, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_ad.bundle import Bundle
from edge_ad.runtime.backends import Session


class Served:
    """A model in ONNX Runtime, as an engine's session."""

    def __init__(self, model: onnx.ModelProto, like: Session) -> None:
        self.inputs, self.outputs = like.inputs, like.outputs
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        names = [o.name for o in self.outputs]
        return dict(zip(names, self._session.run(names, inputs)))


def linear_weights(model: onnx.ModelProto, block: str) -> list[str]:
    """Initialisers of the Linears (MatMul, Gemm, Conv) of one block; a fused Gemm is found by what it feeds."""
    weights = {t.name for t in model.graph.initializer if len(t.dims) >= 2}
    first = next(i for i, n in enumerate(model.graph.node) if block in n.name)
    last = max(i for i, n in enumerate(model.graph.node) if block in n.name)
    nodes = model.graph.node[first : last + 1]
    return [i for n in nodes if n.op_type in ("MatMul", "Gemm", "Conv") for i in n.input if i in weights]


def changed(model: onnx.ModelProto, names: list[str], change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = change(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def noise(array: np.ndarray) -> np.ndarray:
    return array * (1 + 0.05 * np.random.default_rng(array.size).standard_normal(array.shape))


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A rounding twin: weights and what every node gives go through float16 (LayerNorm and shapes apart)."""
    twin = changed(model, [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT], halves)
    nodes = []
    for node in twin.graph.node:
        nodes.append(node)
        if node.op_type in ("LayerNormalization", "Shape", "Constant", "Cast", "Split", "Gather", "Slice"):
            continue
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}.exact"
            nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.half"], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    del twin.graph.node[:], twin.graph.value_info[:]
    twin.graph.node.extend(nodes)
    return twin


def halves(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def load(bundle: Bundle, graph: str) -> onnx.ModelProto:
    return onnx.load(str(bundle.graph_path(graph)))
