"""ONNX Runtime on the CPU: the default backend, everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.errors import EdgeAdError, one_line
from edge_ad.parallel import cores
from edge_ad.runtime.backends.base import agree, check_threads, contiguous
from edge_ad.runtime.resident import give_back_large_blocks

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


LARGE_GRAPH = 64 * 2**20
"""Bytes of an ONNX file above which memory is given back after each run (docs/fast-path.md has the price)."""


def _spec(tensor: Any, where: str) -> TensorSpec:
    if tensor.type not in _DTYPES:
        raise EdgeAdError(f"{where}: '{tensor.name}' is a {tensor.type}", f"one of {', '.join(_DTYPES)}")
    shape = tuple(d if isinstance(d, int) else str(d or f"d{i}") for i, d in enumerate(tensor.shape))
    return TensorSpec(tensor.name, shape, _DTYPES[tensor.type])


class OnnxSession:
    """One graph in ONNX Runtime's CPU provider (float32, or INT8 as explicit Q/DQ).

    Raises
    ------
    EdgeAdError
        The package is missing, the graph cannot be loaded or is not what the manifest says; or ``fp16``, which this
        provider would compute in float32 (hiding the overflows that a GPU shows).
    """

    concurrent = True

    def __init__(self, bundle: Bundle, graph: str, precision: str = "fp32", threads: int | None = None) -> None:
        if precision == "fp16":
            raise EdgeAdError(
                "fp16 with onnxruntime: its CPU provider computes such graphs in float32",
                "fp32 or int8",
                "use --precision fp32, or --backend tensorrt on a GPU",
            )
        if precision == "bf16":
            raise EdgeAdError(
                "bf16 with onnxruntime: its CPU provider has no bfloat16 arithmetic",
                "fp32 or int8",
                "use --backend openvino --precision bf16",
            )
        check_threads(threads)
        path = bundle.graph_path(graph, precision)
        try:
            import onnxruntime as ort
        except ImportError:
            raise EdgeAdError(
                "the package 'onnxruntime' is not installed", "", "run: pip install onnxruntime"
            ) from None
        self._where = f"{bundle.where}: graph {graph}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Its threads wait busily for more work, even between two runs, when other sessions and kernels want the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if path.stat().st_size > LARGE_GRAPH:
            # An arena would keep the activations of every graph for good; here they are given back after a run.
            options.enable_cpu_mem_arena = False
            give_back_large_blocks()
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # ONNX Runtime raises a class of its own for each kind of failure
            raise EdgeAdError(
                f"{self._where}: onnxruntime cannot load {path.name} ({one_line(e)})", "", "run edge-ad export again"
            ) from None
        self.inputs = tuple(_spec(t, self._where) for t in self._session.get_inputs())
        self.outputs = tuple(_spec(t, self._where) for t in self._session.get_outputs())
        agree(self._where, bundle.graph(graph), self.inputs, self.outputs)
        self._names = [t.name for t in self.outputs]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; see :class:`edge_ad.runtime.backends.base.Session`."""
        feed = contiguous(self._where, self.inputs, inputs)
        try:
            results = self._session.run(self._names, feed)
        except Exception as e:
            raise EdgeAdError(f"{self._where} failed in onnxruntime ({one_line(e)})") from None
        return dict(zip(self._names, results))
