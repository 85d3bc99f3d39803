"""From a torch module to a checked, simplified ONNX graph."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from onnxsim import simplify
from torch import Tensor, nn

from edge_ad.bundle import TensorSpec
from edge_ad.errors import EdgeAdError

OPSET = 17
"""The first opset with LayerNormalization as one node, which every TensorRT from 10.3 on parses."""


@dataclass(frozen=True)
class TracedGraph:
    """ONNX bytes with the tensors they take and give."""

    onnx: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: int
    parameters: int


def trace(
    module: nn.Module,
    args: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    rows: Sequence[str] = (),
) -> TracedGraph:
    """Export ``module``, simplify and check it.

    Parameters
    ----------
    args : example inputs. inputs, outputs : tensor names. rows : names of the tensors whose first axis is free.

    Raises
    ------
    EdgeAdError
        The simplified graph differs from the traced one, does not pass ONNX's checker, or split a LayerNormalization.
    """
    module.eval()
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(args),
            buffer,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "rows"} for name in rows} or None,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    simple, same = simplify(model)
    if not same:
        raise EdgeAdError("onnxsim changed the graph's result", "an equal graph", "report the onnxsim version")
    onnx.checker.check_model(simple, full_check=True)
    kinds = [n.op_type for n in simple.graph.node]
    norms, found = _layer_norm_calls(module, args), kinds.count("LayerNormalization")
    if found != norms:
        raise EdgeAdError(f"the exported graph has {found} LayerNormalization nodes", f"one for each of {norms} uses")
    parameters = sum(int(torch.Size(t.dims).numel()) for t in simple.graph.initializer)
    return TracedGraph(
        simple.SerializeToString(),
        tuple(_spec(v) for v in simple.graph.input),
        tuple(_spec(v) for v in simple.graph.output),
        len(kinds),
        parameters,
    )


def _layer_norm_calls(module: nn.Module, args: Sequence[Tensor]) -> int:
    """How often one run of ``module`` goes through a LayerNorm."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.LayerNorm)]
    try:
        with torch.no_grad():
            module(*args)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_param if d.dim_param else int(d.dim_value) for d in tensor.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(value.name, shape, dtype)
