"""An ONNX graph with what the precision passes ask of it: who makes a tensor, who reads it, its type, its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_ad.errors import EdgeAdError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
Model = bytes | Path


class Graph:
    """A copy of a model, open for changes. Constants are initialisers, every node has a name.

    Parameters
    ----------
    model : a checked ONNX model, its bytes or its file. what : its name in errors.

    Raises
    ------
    EdgeAdError
        The bytes are no ONNX model, or its types cannot be inferred.
    """

    def __init__(self, model: ModelProto | bytes | Path, what: str = "graph") -> None:
        self.what = what
        self.model = _load(model, what)
        _constants_to_initialisers(self.model)
        for i, node in enumerate(self.model.graph.node):
            node.name = node.name or f"{node.op_type}_{i}"
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, strict_mode=True, data_prop=True)
        except Exception as e:  # onnx raises classes of its own, also for a model it cannot parse
            raise EdgeAdError(f"{what}: types cannot be inferred ({e})", "a checked ONNX graph") from None
        values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        self.types: dict[str, int] = {v.name: v.type.tensor_type.elem_type for v in values}
        self.types.update({t.name: t.data_type for t in self.model.graph.initializer})
        self.values = {v.name: v for v in values}
        self.weights: dict[str, TensorProto] = {t.name: t for t in self.model.graph.initializer}
        self.index()

    def index(self) -> None:
        """Look up makers and readers anew, after nodes were changed."""
        self.maker: dict[str, NodeProto] = {o: n for n in self.nodes for o in n.output if o}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    @property
    def nodes(self) -> list[NodeProto]:
        """Nodes in the order in which they run."""
        return list(self.model.graph.node)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [v.name for v in self.model.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [v.name for v in self.model.graph.output]

    def is_float(self, tensor: str) -> bool:
        """Whether a tensor is FP32 or FP16; False for an input that was left out."""
        return self.types.get(tensor) in FLOATS

    def floats(self, node: NodeProto) -> list[str]:
        """Float inputs of a node that are not weights."""
        return [t for t in dict.fromkeys(node.input) if t and t not in self.weights and self.is_float(t)]

    def array(self, weight: str) -> NDArray[np.generic]:
        """Values of a weight."""
        return numpy_helper.to_array(self.weights[weight])

    def add_weight(self, name: str, values: NDArray[np.generic]) -> str:
        """Add (or replace) a weight; returns its name."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        if name in self.weights:
            self.weights[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.weights[name] = self.model.graph.initializer[-1]
        self.types[name] = tensor.data_type
        return name

    def replace_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Put these nodes, in this order, in the place of all."""
        fresh = list(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(fresh)
        self.index()

    def finish(self, opset: int | None = None) -> bytes:
        """Drop weights that nobody reads and stale types, check, and serialise.

        Raises
        ------
        EdgeAdError
            The graph does not pass ONNX's checker; a fault of the pass that changed it.
        """
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        kept = [t for t in self.model.graph.initializer if t.name in used]
        fresh = helper.make_graph(
            self.nodes, self.model.graph.name, self.model.graph.input, self.model.graph.output, kept
        )
        version = opset or next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        model = helper.make_model(
            fresh, opset_imports=[helper.make_opsetid("", version)], ir_version=max(self.model.ir_version, 8)
        )
        model.producer_name = "edge-ad"
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as e:
            raise EdgeAdError(f"{self.what}: the changed graph is not valid ({e})", "a valid graph") from None
        return bytes(model.SerializeToString())


def _load(model: ModelProto | bytes | Path, what: str) -> ModelProto:
    if isinstance(model, ModelProto):
        fresh = ModelProto()
        fresh.CopyFrom(model)
        return fresh
    try:
        return onnx.load_from_string(model.read_bytes() if isinstance(model, Path) else model)
    except EdgeAdError:
        raise
    except Exception as e:
        raise EdgeAdError(
            f"{what} is not an ONNX model ({e})", "an exported graph", "run edge-ad export again"
        ) from None


def _constants_to_initialisers(model: ModelProto) -> None:
    """Constant nodes are weights like any other; the passes then know one kind."""
    kept = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in kept]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
