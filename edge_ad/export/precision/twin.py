"""The rounding twin: what an FP16 graph computes, measured where no FP16 hardware is.

ONNX Runtime's CPU provider computes FP16 graphs in float32 and so hides overflows and most of the rounding. The twin
is the same graph in float32 with a cast to FP16 and back after every operation that runs in FP16, and with the
weights rounded. Sums inside an operation stay float32, as tensor cores accumulate; what a fused kernel keeps to
itself is rounded too, so the twin is a little pessimistic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import MOVERS

EXACT = "_exact"
ROUNDED = "_rounded"
PEAK = "peak:"


@dataclass(frozen=True)
class Twin:
    """onnx : the twin. rounded : tensor before its rounding -> the FP16 nodes that overflow if it does not fit."""

    onnx: bytes
    rounded: dict[str, tuple[str, ...]]


def rounding_twin(model: bytes | Path | ModelProto, what: str = "graph") -> Twin:
    """The twin of an FP16 graph (or of an INT8 graph with FP16 around it), as a float32 graph."""
    graph = Graph(model, what)
    halves = {t for t, kind in graph.types.items() if kind == TensorProto.FLOAT16}
    for name in list(graph.weights):
        if name in halves:
            graph.add_weight(name, graph.array(name).astype(np.float32))
    rounded: dict[str, tuple[str, ...]] = {}
    out: list[NodeProto] = []
    for node in graph.nodes:
        if node.op_type == "Cast" and graph.is_float(node.input[0]):
            target = node.output[0]
            if target in halves:
                rounded[node.input[0]] = tuple(r.name for r in graph.readers.get(target, []))
                out += _rounding(node.input[0], target)
            else:
                out.append(helper.make_node("Identity", list(node.input), list(node.output), name=node.name))
            continue
        out.append(node)
        if node.op_type in MOVERS:
            continue
        for i, tensor in enumerate(node.output):
            if tensor in halves:
                node.output[i] = tensor + EXACT
                rounded[tensor + EXACT] = (node.name,)
                out += _rounding(tensor + EXACT, tensor)
    graph.replace_nodes(out)
    return Twin(graph.finish(), rounded)


def _rounding(source: str, target: str) -> list[NodeProto]:
    half = target + ROUNDED
    return [
        helper.make_node("Cast", [source], [half], name=f"round:{target}", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [target], name=f"widen:{target}", to=TensorProto.FLOAT),
    ]


def with_peaks(twin: Twin, what: str = "graph") -> bytes:
    """The twin with an output ``peak:TENSOR`` for each rounded tensor: its largest absolute value before that."""
    graph = Graph(twin.onnx, what)
    nodes = graph.nodes
    for tensor in twin.rounded:
        nodes.append(helper.make_node("Abs", [tensor], [f"abs:{tensor}"], name=f"abs:{tensor}"))
        nodes.append(helper.make_node("ReduceMax", [f"abs:{tensor}"], [PEAK + tensor], name=PEAK + tensor, keepdims=0))
        graph.model.graph.output.append(helper.make_tensor_value_info(PEAK + tensor, TensorProto.FLOAT, []))
    graph.replace_nodes(nodes)
    return graph.finish()


def with_outputs(model: bytes | Path | ModelProto, tensors: list[str], what: str = "graph") -> bytes:
    """A graph that also gives inner float tensors as outputs, by their own names."""
    graph = Graph(model, what)
    for tensor in tensors:
        if tensor not in graph.outputs and tensor not in graph.inputs:
            graph.model.graph.output.append(graph.values[tensor])
    return graph.finish()
