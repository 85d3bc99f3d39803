"""INT8 by explicit Q/DQ: symmetric, per-channel weights, on Linear and Conv alone; everything around them in FP16.

Attention products, LayerNorm, GELU and residuals are never quantised (TensorRT fuses no INT8 attention beyond 512
tokens). Scales are float32 and Q/DQ work in float32, with casts to the FP16 around them: FP16 scales need opset 19,
and TensorRT 10.16 is reported to refuse them on SM 8.7 (NVIDIA/TensorRT issue 4832). One file serves TensorRT and
ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.fp16 import half_nodes, to_fp16
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import Layer, quantisable

LEVELS = 127  # -127 .. 127: symmetric, so that no zero point is needed
_TINY = float(np.finfo(np.float32).tiny)


def quantise_weight(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Per-channel symmetric: int8 of the same shape, and (channels,) float32 scales; ``weight ~ q * scale``."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peak = np.abs(weight).max(axis=others) if weight.size else np.zeros(weight.shape[axis], np.float32)
    scale = np.maximum(peak / LEVELS, _TINY).astype(np.float32)
    scale = np.where(peak > 0, scale, np.float32(1))  # a channel of zeros
    shape = [1] * weight.ndim
    shape[axis] = -1
    q = np.clip(np.rint(weight / scale.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)
    return q, scale.astype(np.float32)


def place(graph: Graph, ranges: Mapping[str, float]) -> list[Layer]:
    """Put Q/DQ before the layers named in ``ranges`` (largest absolute input that is told apart), in a float32 graph.

    Layers that read one tensor with one range share its Q/DQ. Returns the layers that were quantised.

    Raises
    ------
    EdgeAdError
        A name that is no quantisable layer of this graph, or a range that is not above 0 and finite.
    """
    all_layers = quantisable(graph)
    known = {layer.name for layer in all_layers}
    unknown = sorted(set(ranges) - known)
    if unknown:
        raise EdgeAdError(
            f"{graph.what} has no layer {', '.join(unknown[:3])} to quantise",
            "the table of this very graph",
            "run edge-ad calibrate int8 again",
        )
    chosen = {layer.node.name: layer for layer in all_layers if layer.name in ranges}
    weights: dict[str, str] = {}
    shared: dict[tuple[str, float], str] = {}
    out: list[NodeProto] = []
    for node in graph.nodes:
        layer = chosen.get(node.name)
        if layer is not None:
            amax = float(ranges[layer.name])
            if not 0 < amax < float("inf"):
                raise EdgeAdError(f"{graph.what}: range {amax} of layer {layer.name}", "a finite range above 0")
            key = (layer.data, amax)
            if key not in shared:
                shared[key] = f"{layer.data}_dq{len(shared)}"
                out += _activation(graph, layer.data, amax / LEVELS, shared[key])
            if layer.weight not in weights:
                out.append(_weight(graph, layer))
                weights[layer.weight] = out[-1].output[0]
            node.input[0], node.input[1] = shared[key], weights[layer.weight]
        out.append(node)
    graph.replace_nodes(out)
    return list(chosen.values())


def _activation(graph: Graph, tensor: str, scale: float, result: str) -> list[NodeProto]:
    s = graph.add_weight(f"{result}_scale", np.asarray(scale, np.float32))
    z = graph.add_weight(f"{result}_zero", np.asarray(0, np.int8))
    graph.types[f"{result}_q"], graph.types[result] = TensorProto.INT8, TensorProto.FLOAT
    return [
        helper.make_node("QuantizeLinear", [tensor, s, z], [f"{result}_q"], name=f"Q:{result}"),
        helper.make_node("DequantizeLinear", [f"{result}_q", s, z], [result], name=f"DQ:{result}"),
    ]


def _weight(graph: Graph, layer: Layer) -> NodeProto:
    q, scale = quantise_weight(graph.array(layer.weight).astype(np.float32), layer.axis)
    name, result = layer.node.name, f"{layer.node.name}_wdq"
    inputs = [
        graph.add_weight(f"{name}_w8", q),
        graph.add_weight(f"{name}_wscale", scale),
        graph.add_weight(f"{name}_wzero", np.zeros(scale.shape, np.int8)),
    ]
    graph.types[result] = TensorProto.FLOAT
    return helper.make_node("DequantizeLinear", inputs, [result], name=f"DQ:{result}", axis=layer.axis)


def to_int8(graph: Graph, ranges: Mapping[str, float], keep: Collection[str] | None) -> bytes:
    """The INT8 graph of a float32 graph (which is changed).

    ranges : layer -> largest absolute input; layers without one stay in the precision around them. keep : nodes that
    stay FP32 (the rest runs in FP16); None: all that is not INT8 stays FP32, to measure the quantisation alone.
    """
    place(graph, ranges)
    if keep is None:
        return graph.finish()
    return to_fp16(graph, half_nodes(graph, keep)).finish()
