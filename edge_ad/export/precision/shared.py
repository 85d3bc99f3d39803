"""The classes' own standardisations as one that they share and a turn of each, so that FP16 suffices for the turns.

With ``mappers.condition = "class"`` the tokens' graph holds an affine map ``W_k t + b_k`` a class. It whitens, so it
lives on small differences of large numbers: FP16 weights for the points of `compact` change the map by 0.4 %, where all
of FP16 costs 0.05 %. So every class's map stays FP32, and with five classes they are a third of the INT8 graphs' bytes.

With ``R`` the symmetric root of the mean of ``W_k' W_k``, ``W_k t + b_k = T_k (R t + m) + (b_k - T_k m)`` is the same
map: ``R`` whitens once and in FP32, and the ``T_k`` (``sum T_k' T_k = C I``) turn what is white already. ``m`` is the
mean of ``T_k' b_k``: with it the classes' offsets are as small as they can be, and what is turned lies about 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import helper
from threadpoolctl import threadpool_limits

from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.roles import ROOT, is_standardisation, source

CLASSES = 3
"""With fewer classes nothing is saved."""


def share_standardisation(model: Model, what: str) -> Model:
    """The float32 graph with its classes' standardisations taken apart; the model itself where it has none.

    The same bytes each time on one machine: with several threads the last bits would depend on how many there are.
    """
    graph = Graph(model, what)
    products = [n.name for n in graph.nodes if n.op_type == "Gemm" and is_standardisation(graph, n)]
    with threadpool_limits(1, "blas"):
        changed = [_take_apart(graph, name) for name in products]
    return graph.finish() if any(changed) else model


def factors(maps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, D', D) maps -> turns (C, D', D) and root (D, D), ``maps[k] = turns[k] @ root``.

    Directions that no map looks at (below 1e-9 of the largest) are left out of both.
    """
    values, vectors = np.linalg.eigh(np.einsum("kij,kil->jl", maps, maps) / len(maps))
    scale = np.sqrt(np.maximum(values, 0.0))
    kept = scale > 1e-9 * scale.max(initial=0.0)
    inverse = np.where(kept, 1.0 / np.where(kept, scale, 1.0), 0.0)
    root = (vectors * np.where(kept, scale, 0.0)) @ vectors.T
    return maps @ ((vectors * inverse) @ vectors.T), root


def _take_apart(graph: Graph, node: str) -> bool:
    """One product by a class's own weight; whether it was one."""
    nodes = graph.nodes
    at = [n.name for n in nodes].index(node)
    product = nodes[at]
    name, offset = source(graph, product.input[1]), source(graph, product.input[2])
    given = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    alone = all(n in graph.weights and len(graph.readers[n]) == 1 for n in (name, offset))
    if not alone or not given.get("transB") or given.get("transA"):
        return False
    maps = graph.array(name).astype(np.float64)
    if maps.ndim != 3 or len(maps) < CLASSES:
        return False
    turns, root = factors(maps)
    offsets = graph.array(offset).astype(np.float64)
    mean = np.einsum("kij,ki->j", turns, offsets) / len(maps)
    graph.add_weight(name, turns.astype(np.float32))
    graph.add_weight(offset, (offsets - turns @ mean).astype(np.float32))
    weights = [
        graph.add_weight(f"{name}.{ROOT}", root.astype(np.float32)),
        graph.add_weight(f"{name}.{ROOT}_mean", mean.astype(np.float32)),
    ]
    white = f"{product.output[0]}_white"
    graph.types[white] = graph.types[product.input[0]]
    shared = helper.make_node("Gemm", [product.input[0], *weights], [white], name=f"{product.name}_shared")
    product.input[0] = white
    graph.replace_nodes([*nodes[:at], shared, *nodes[at:]])
    return True
