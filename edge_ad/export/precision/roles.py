"""What a node of a graph is: a layer with weights, part of a norm or a distance, or a mere mover of data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edge_ad.export.precision.graph import Graph

# They change no value, so they run in whatever type their input has.
MOVERS = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Concat", "Gather", "Expand", "Identity", "Pad")
)
# Sums of many squares, and what is divided by them: LayerNorm and distances (METHOD.md sections 6 and 7).
NORMS = frozenset(("LayerNormalization", "ReduceL2", "ReduceL1", "ReduceSumSquare", "ReduceSum"))
ROOT = "standard_root"
"""The weight of a standardisation that classes share (:mod:`edge_ad.export.precision.shared`)."""
STANDARDISATION = ("rgb_offset", "point_offset")
"""Offsets of the affine maps that standardise the tokens: whitening multiplies small differences, and distances are
measured between what they make."""
LEVEL = "_level"
PRODUCTS = 32
"""Fewer multiplications an output (depthwise and first convolutions) than one INT8 tensor-core step takes stay FP16."""
SMALLEST_NORMAL = 2.0**-14
LARGEST = 65504.0


@dataclass(frozen=True)
class Layer:
    """A linear or convolution layer.

    name : as in the torch model, e.g. ``blocks.0.attn.qkv``. node : its node. data, weight : its two inputs.
    axis : axis of the weight that counts output channels. group : the block it belongs to, e.g. ``blocks.0``.
    products : multiplications an output.
    """

    name: str
    node: NodeProto
    data: str
    weight: str
    axis: int
    group: str
    products: int


def layers(graph: Graph) -> list[Layer]:
    """Every Linear (MatMul or Gemm by a weight) and Conv of a graph, in order; what standardises the features is none.

    Uses of one weight (the mini-PointNet runs part by part) are several entries of one name.
    """
    found = []
    names: dict[str, str] = {}  # weight -> name
    for node in graph.nodes:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or len(node.input) < 2:
            continue
        data, weight = node.input[0], node.input[1]
        if weight not in graph.weights or data in graph.weights or is_standardisation(graph, node):
            continue
        dims = list(graph.weights[weight].dims)
        if node.op_type != "Conv" and len(dims) != 2:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else 1
        if weight not in names:
            name = layer_name(graph, node)
            again = sum(n.split(":")[0] == name for n in names.values())
            names[weight] = f"{name}:{again + 1}" if again else name
        name = names[weight]
        found.append(Layer(name, node, data, weight, axis, group_of(name), math.prod(dims) // max(1, dims[axis])))
    return found


def quantisable(graph: Graph) -> list[Layer]:
    """The layers that INT8 is for: those with :data:`PRODUCTS` multiplications an output or more, levels apart."""
    left = levels(graph)
    return [layer for layer in layers(graph) if layer.products >= PRODUCTS and layer.node.name not in left]


def layer_name(graph: Graph, node: NodeProto) -> str:
    """The torch module's name: from the node, else from its bias or weight (the simplifier renames nodes)."""
    if node.name.startswith("/"):
        parts = node.name.strip("/").split("/")[:-1]
        if parts:
            # Tracing writes a/a.0/b: an inner scope that repeats its outer one.
            return _plain(".".join(p for p, q in zip(parts, [*parts[1:], ""]) if not q.startswith(p + ".")))
    for tensor in reversed(node.input[1:]):
        stem = re.sub(r"\.(bias|weight)$", "", tensor)
        if stem != tensor:
            return _plain(stem)
    return node.name


def _plain(name: str) -> str:
    """``encoder.blocks.blocks.0.attn.qkv`` -> ``blocks.0.attn.qkv``: without repeated scopes and the graph's own."""
    parts = name.split(".")
    kept = [p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1] or p.isdigit()]
    return ".".join(kept[1:] if len(kept) > 1 and kept[0] == "encoder" else kept)


def group_of(name: str) -> str:
    """``blocks.3.attn.qkv`` -> ``blocks.3``; a layer outside of numbered blocks: the module that holds it."""
    found = re.match(r"_?blocks\.\d+", name)
    return found[0] if found else name.split(".")[0].split(":")[0]


def is_standardisation(graph: Graph, node: NodeProto) -> bool:
    """Whether a node is the affine map that standardises the tokens, its product alone, or a class's part of it."""
    if _reads_offset(graph, node):
        return True
    after = [r for o in node.output for r in graph.readers.get(o, [])]
    return len(after) == 1 and after[0].op_type == "Add" and _reads_offset(graph, after[0])


def _reads_offset(graph: Graph, node: NodeProto) -> bool:
    return any(source(graph, t).rpartition(".")[2] in (*STANDARDISATION, ROOT) for t in node.input)


def turns_what_is_white(graph: Graph, node: NodeProto) -> bool:
    """Whether a node is a class's turn of features that the shared standardisation has whitened."""
    before = graph.maker.get(node.input[0]) if node.input else None
    return before is not None and any(t.rpartition(".")[2] == ROOT for t in before.input)


def source(graph: Graph, tensor: str) -> str:
    """The tensor that movers (the choice of a class's own offset) made this one of."""
    while (node := graph.maker.get(tensor)) is not None and node.op_type in MOVERS:
        tensor = node.input[0]
    return tensor


def levels(graph: Graph) -> set[str]:
    """Names of the nodes that make nothing but a level a token (outputs ``*_level``), by which distances are divided.

    A few thousand products, and an exponential at the end: nothing to gain from fewer bits.
    """
    leads: dict[str, set[str]] = {name: {name} for name in graph.outputs}  # tensor -> outputs it leads to
    found: set[str] = set()
    for node in reversed(graph.nodes):
        reached = {o for t in node.output for o in leads.get(t, set())}
        for tensor in node.input:
            leads.setdefault(tensor, set()).update(reached)
        if reached and all(o.endswith(LEVEL) for o in reached):
            found.add(node.name)
    return found


def _last_layers(graph: Graph, names: set[str]) -> set[str]:
    """Of these nodes the last products by a weight, and what stands behind them."""
    before: set[str] = set()  # tensors that lead to a product
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.name in names:
            leads = any(t in before for t in node.output)
            if not leads:
                found.add(node.name)
            if leads or (node.op_type in ("MatMul", "Gemm") and node.input[1] in graph.weights):
                before.update(node.input)
    return found


def residuals(graph: Graph) -> set[str]:
    """Names of the sums that make up a transformer's residual stream: each adds to another one's, LayerNorms read it.

    Small updates of large values: of all that a transformer rounds to FP16 these sums cost most, and have no weights.
    """
    sums = [
        n for n in graph.nodes if n.op_type == "Add" and not any(source(graph, t) in graph.weights for t in n.input)
    ]
    normed, made = set[str](), {n.output[0]: n.name for n in sums}
    after: dict[str, set[str]] = {n.name: set() for n in sums}
    for node in graph.nodes:
        before = {made[t] for t in (source(graph, i) for i in node.input) if t in made}
        if node.op_type == "LayerNormalization":
            normed |= before
        for name in before if node.name in after else ():
            after[name].add(node.name)
    found: set[str] = set()
    for node in reversed(sums):  # a reader stands behind what it reads
        if node.name in normed or after[node.name] & found:
            found.add(node.name)
    joined = {reader for name in found for reader in after[name]}
    return {name for name in found if after[name] & found or name in joined}


def kept_by_rule(graph: Graph) -> dict[str, str]:
    """Nodes that stay FP32 whatever the data says: node name -> why.

    LayerNorm and the residual stream that it reads, norms and distances with the arithmetic between them, the
    standardisation of the tokens, the last layer of their levels, and constants that FP16 cannot hold.
    """
    kept: dict[str, str] = {}
    level, stream = _last_layers(graph, levels(graph)), residuals(graph)
    for node in graph.nodes:
        if node.op_type in NORMS:
            kept[node.name] = "LayerNorm" if node.op_type == "LayerNormalization" else "distance"
        elif is_standardisation(graph, node) and not turns_what_is_white(graph, node):
            kept[node.name] = "standardisation"
        elif node.name in level:
            kept[node.name] = "level"
        elif node.name in stream:
            kept[node.name] = "residual"
        elif _unfit_constant(graph, node):
            kept[node.name] = "constant outside FP16"
    # Forward from each norm of vectors: the clamp, the quotient, the difference of unit vectors.
    reached = {o for n in graph.nodes if n.op_type.startswith("Reduce") and n.name in kept for o in n.output}
    for node in graph.nodes:
        if node.op_type in ("Clip", "Max", "Div", "Sub", "Expand", "Mul", "Add", "Sqrt", "Reciprocal") and any(
            t in reached for t in node.input
        ):
            kept[node.name] = "distance"
            reached.update(node.output)
    return kept


def _unfit_constant(graph: Graph, node: NodeProto) -> bool:
    for tensor in node.input:
        if tensor not in graph.weights or not graph.is_float(tensor):
            continue
        values = np.abs(graph.array(tensor).astype(np.float64))
        if values.size and values.max() > LARGEST:
            return True
        if values.size == 1 and 0 < float(values.ravel()[0]) < SMALLEST_NORMAL:
            return True
    return False
