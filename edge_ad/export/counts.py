"""Arithmetic and memory traffic of a graph, counted from its shapes at export and kept in the manifest.

Counted as FLOP: two a multiply-add of MatMul, Gemm and Conv, and one an element of everything else. Bytes: the graph's
weights once, its inputs and outputs, and every intermediate tensor written once and read once. A fused implementation
moves less, so the bytes are those of the graph as it stands, not of the best program for it.
"""

from __future__ import annotations

import math
from typing import Any

import onnx
from onnx import shape_inference

_FREE = ("Constant", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape")
_MOVES = ("Concat", "Gather", "Split", "Slice", "Transpose", "Expand", "Pad", "Cast", "Tile")


def count(model_bytes: bytes, rows: int | None = None) -> dict[str, Any]:
    """FLOP and bytes of one run.

    Parameters
    ----------
    rows : value of every free dimension; needed where there is one.

    Returns
    -------
    ``{"gflop", "weights_mb", "least_mb", "traffic_mb"}``: 10^9 operations, 10^6 bytes (``least``: weights, inputs and
    outputs, as if everything between them were fused); all for the given ``rows``.
    """
    model = onnx.load_from_string(model_bytes)
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param:
                if rows is None:
                    raise ValueError(f"{value.name} has a free dimension")
                d.dim_value = rows  # replaces the name: the two are one field
    del graph.value_info[:]
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    weights = {t.name for t in graph.initializer}
    for t in graph.initializer:
        shapes[t.name] = tuple(t.dims)
        sizes[t.name] = math.prod(t.dims) * onnx.helper.tensor_dtype_to_np_dtype(t.data_type).itemsize
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        shape = tuple(int(d.dim_value) for d in tensor.shape.dim)
        shapes[value.name] = shape
        sizes[value.name] = math.prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    flop = 0
    for node in graph.node:
        flop += _flop(node, shapes)
    weights_b = sum(sizes[n] for n in weights)
    ends = {v.name for v in (*graph.input, *graph.output)}
    least = weights_b + sum(sizes[n] for n in ends if n in sizes)
    traffic = least
    for node in graph.node:
        if node.op_type not in _FREE:
            traffic += sum(2 * sizes[n] for n in node.output if n in sizes and n not in ends)
    return {
        "gflop": flop / 1e9,
        "weights_mb": weights_b / 1e6,
        "least_mb": least / 1e6,
        "traffic_mb": traffic / 1e6,
    }


def _flop(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    out = math.prod(shapes.get(node.output[0], (0,)))
    kind = node.op_type
    if kind in _FREE or kind in _MOVES:
        return 0
    if kind in ("MatMul", "Gemm"):
        a = shapes.get(node.input[0], ())
        transposed = any(x.name == "transA" and x.i for x in node.attribute)
        inner = (a[-2] if transposed else a[-1]) if a else 0
        return 2 * out * inner + (out if kind == "Gemm" and len(node.input) > 2 else 0)
    if kind == "Conv":
        kernel = shapes.get(node.input[1], ())
        return 2 * out * math.prod(kernel[1:]) + (out if len(node.input) > 2 else 0)
    read = math.prod(shapes.get(node.input[0], (0,))) if node.input else 0
    return max(out, read)
