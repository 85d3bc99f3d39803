"""OpenVINO on the CPU (extra ``openvino``): float32, INT8 as explicit Q/DQ, and bfloat16 where the processor has it.

bfloat16 is a precision of the arithmetic, not of the graph: the float32 file is compiled with OpenVINO's inference
precision hint. Only the encoders run in it. The token-side products and the distances stay in float32, because a good
part's distance is the difference of two nearly equal vectors, and 8 bits of mantissa would leave nothing of it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError, missing_package, one_line
from edge_ad.parallel import cores
from edge_ad.runtime.backends.base import agree, check_threads, contiguous

IN_BF16 = ("rgb", "points")
"""The graphs that ``--precision bf16`` computes in bfloat16."""


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise missing_package("openvino", "openvino") from None
    return openvino


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor; raises EdgeAdError where it is not installed."""
    return "BF16" in _openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoSession:
    """One graph in OpenVINO's CPU plugin. ``run`` may be called from several threads at once.

    Raises
    ------
    EdgeAdError
        The package is missing, the processor has no bfloat16, ``fp16`` (computed in float32 there), or the graph
        cannot be loaded or is not what the manifest says.
    """

    concurrent = True

    def __init__(self, bundle: Bundle, graph: str, precision: str = "fp32", threads: int | None = None) -> None:
        if precision == "fp16":
            raise EdgeAdError(
                "fp16 with openvino: its CPU plugin computes such graphs in another precision",
                "fp32, bf16 or int8",
                "use --precision bf16, or --backend tensorrt on a GPU",
            )
        check_threads(threads)
        path = bundle.graph_path(graph, precision)
        openvino = _openvino()
        core = openvino.Core()
        bf16 = precision == "bf16" and graph in IN_BF16
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EdgeAdError(
                "bf16 with openvino: this processor has no bfloat16 instructions (avx512_bf16 or amx_bf16)",
                "a processor that has them",
                "use --precision fp32 here",
            )
        # Several callers with few threads each get a stream each; one caller gets all threads.
        streams = max(1, cores() // threads) if threads else 1
        config = {
            # Without it OpenVINO takes bfloat16 wherever the processor has it, float32 graph or not.
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads if threads else cores(),
            "ENABLE_CPU_PINNING": False,
        }
        self._where = f"{bundle.where}: graph {graph}"
        try:
            self._model: Any = core.compile_model(core.read_model(str(path)), "CPU", config)
        except Exception as e:  # OpenVINO raises RuntimeError, and others from its readers
            raise EdgeAdError(
                f"{self._where}: openvino cannot load {path.name} ({one_line(e)})", "", "run edge-ad export again"
            ) from None
        spec = bundle.graph(graph)
        self.inputs = tuple(_spec(p, spec.inputs) for p in self._model.inputs)
        self.outputs = tuple(_spec(p, spec.outputs) for p in self._model.outputs)
        agree(self._where, spec, self.inputs, self.outputs)
        self._own = threading.local()  # an infer request belongs to one thread at a time

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`edge_ad.runtime.backends.base.Session`."""
        feed = contiguous(self._where, self.inputs, inputs)
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._model.create_infer_request()
        try:
            # Inputs are shared for the call; outputs are copied, for the request reuses its own.
            request.infer(feed, share_inputs=True, share_outputs=True)
            return {t.name: np.array(request.get_tensor(t.name).data) for t in self.outputs}
        except Exception as e:
            raise EdgeAdError(f"{self._where} failed in openvino ({one_line(e)})") from None


def _spec(port: Any, promised: tuple[TensorSpec, ...]) -> TensorSpec:
    """A tensor by its name in the manifest: OpenVINO keeps the names of folded nodes beside it, in no order."""
    names = port.get_names()
    name = next((t.name for t in promised if t.name in names), None) or port.get_any_name()
    shape = tuple(d.get_length() if d.is_static else f"d{i}" for i, d in enumerate(port.get_partial_shape()))
    return TensorSpec(name, shape, np.dtype(port.get_element_type().to_dtype()).name)
