"""FP16 by casting: which nodes run in half precision, and the graph that says so to any strongly typed engine."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import MOVERS, source

HALF = "_f16"
FULL = "_f32"
# Inputs that ONNX gives a type of their own, whatever the data's type: Resize's regions and scales.
_OWN_TYPE = {"Resize": (1, 2)}
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def half_nodes(graph: Graph, keep: Collection[str]) -> set[str]:
    """Names of the nodes that run in FP16: all float arithmetic except ``keep``.

    Movers of data (Reshape, Concat, ...) take the type of what they move, and FP32 where that is mixed. One that moves
    a weight (the choice of a class's own) takes that of its readers.
    """
    half: set[str] = set()
    for node in graph.nodes:
        if node.name in keep or node.op_type in _QUANTISERS or not any(graph.is_float(o) for o in node.output):
            continue
        if node.op_type in MOVERS:
            moved = graph.floats(node)
            if not moved or any(t not in graph.maker or graph.maker[t].name not in half for t in moved):
                continue
        half.add(node.name)
    for node in reversed(graph.nodes):
        if node.op_type in MOVERS and node.name not in keep and source(graph, node.output[0]) in graph.weights:
            readers = [r for o in node.output for r in graph.readers.get(o, [])]
            if graph.is_float(node.output[0]) and readers and all(r.name in half for r in readers):
                half.add(node.name)
    return half


def to_fp16(graph: Graph, half: Collection[str]) -> Graph:
    """Run the nodes ``half`` in FP16, with casts where FP16 and FP32 meet. Inputs and outputs stay FP32.

    A weight that only FP16 nodes read is stored in FP16; one that both read, in both. The graph is changed and
    returned.
    """
    casts: dict[tuple[str, int], str] = {}
    produced = {o for n in graph.nodes if n.name in half for o in n.output if graph.is_float(o)}
    out: list[NodeProto] = []
    outputs = set(graph.outputs)

    def wanted(tensor: str, kind: int) -> str:
        """The tensor's name in this type; a cast (or a converted weight) where it has the other."""
        made_half = tensor in produced
        if made_half == (kind == TensorProto.FLOAT16):
            return tensor
        key = (tensor, kind)
        if key not in casts:
            name = casts[key] = tensor + (HALF if kind == TensorProto.FLOAT16 else FULL)
            if tensor in graph.weights:
                graph.add_weight(name, graph.array(tensor).astype(np.float16))
            else:
                out.append(helper.make_node("Cast", [tensor], [name], name=f"Cast{name}", to=kind))
                graph.types[name] = kind
        return casts[key]

    for node in graph.nodes:
        kind = TensorProto.FLOAT16 if node.name in half else TensorProto.FLOAT
        own = _OWN_TYPE.get(node.op_type, ())
        for i, tensor in enumerate(node.input):
            if tensor and i not in own and graph.is_float(tensor) and not _free_scale(node, i):
                node.input[i] = wanted(tensor, kind)
        out.append(node)
    # An output keeps its name and FP32: its FP16 maker writes beside it.
    renamed = {t: t + HALF for t in outputs & produced}
    for node in out:
        for i, tensor in enumerate(node.output):
            if tensor in renamed:
                node.output[i] = renamed[tensor]
        for i, tensor in enumerate(node.input):
            if tensor in renamed:
                node.input[i] = renamed[tensor]
    for tensor, inner in renamed.items():
        out.append(helper.make_node("Cast", [inner], [tensor], name=f"Cast{tensor}", to=TensorProto.FLOAT))
    for tensor in produced:
        graph.types[renamed.get(tensor, tensor)] = TensorProto.FLOAT16
    graph.replace_nodes(out)
    return graph


def _free_scale(node: NodeProto, index: int) -> bool:
    """Scales and zero points of Q/DQ are not data."""
    return node.op_type in _QUANTISERS and index > 0


def cast_fp16(graph: Graph, keep: Collection[str]) -> bytes:
    """The FP16 graph of a float32 graph (which is changed): every float node but ``keep`` runs in FP16."""
    return to_fp16(graph, half_nodes(graph, keep)).finish()
