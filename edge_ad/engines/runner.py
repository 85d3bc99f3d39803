"""A deserialised plan: one execution context, tensors by name, ``execute_async_v3``. Needs a current CUDA context."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.manifest import TensorSpec
from edge_ad.engines import trt
from edge_ad.errors import EdgeAdError

if TYPE_CHECKING:
    import tensorrt

MARGIN_BYTES = 32 << 20
"""Left free on the device: TensorRT's own handles and the driver's module loading take some too."""


def preflight(what: str, weights: int, work: int, free: int, total: int) -> None:
    """Refuse an engine that cannot fit, before TensorRT fails half way.

    Parameters
    ----------
    weights : bytes of the plan's weights. work : bytes of activations and workspace. free, total : of the device.

    Raises
    ------
    EdgeAdError
        What it needs, what is free, and what to do.
    """
    need = weights + work + MARGIN_BYTES
    if need > free:
        raise EdgeAdError(
            f"{what} needs {need >> 20} MB of GPU memory (weights {weights >> 20}, activations and workspace "
            f"{work >> 20}, reserve {MARGIN_BYTES >> 20})",
            f"at most the {free >> 20} MB that are free (of {total >> 20})",
            "close other programs on the GPU, build with a smaller --workspace-mb, in --precision fp16, or with "
            "--weight-streaming",
        )


class Engine:
    """One plan, ready to run.

    Parameters
    ----------
    plan : bytes whose hash was checked against the sidecar (:func:`edge_ad.engines.identity.read_plan`).
    what : names it in errors. memory : gives (free, total) bytes of the device; None: no preflight.
    streaming : whether it was built with weight streaming: then not all its weights must fit.

    Raises
    ------
    EdgeAdError
        It does not fit into the device's free memory, or TensorRT refuses the plan or gives no context.
    """

    def __init__(
        self,
        backend: str,
        plan: bytes,
        what: str,
        memory: Callable[[], tuple[int, int]] | None = None,
        streaming: bool = False,
    ) -> None:
        module = trt.load_module(backend)
        self._log = trt.Log(module)
        self._what = what
        remedy = f"build it again on this device: edge-ad build-engine BUNDLE --backend {backend} --force"
        self._runtime: tensorrt.Runtime = module.Runtime(self._log.logger)  # must outlive the engine
        if memory is not None and not streaming:
            preflight(what, len(plan), 0, *memory())
        self._engine = self._deserialize(plan, remedy)
        if memory is not None:  # activations are allocated with the context; the weights lie there by now
            if streaming:
                self._stream_weights(memory()[0])
            preflight(what, 0, self.work_bytes, *memory())
        context = self._engine.create_execution_context()
        if context is None:
            raise EdgeAdError(f"{what} has no memory to run in: {self._log.tail()}", "", "close programs on the GPU")
        self._context: tensorrt.IExecutionContext = context
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            is_input = self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
            sizes = trt.sizes(self._engine.get_tensor_shape(name))
            shape = tuple(f"d{j}" if d < 0 else d for j, d in enumerate(sizes))
            spec = TensorSpec(name, shape, trt.dtype_name(self._engine.get_tensor_dtype(name)))
            (self.inputs if is_input else self.outputs).append(spec)

    def _deserialize(self, plan: bytes, remedy: str) -> tensorrt.ICudaEngine:
        engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EdgeAdError(f"{self._what} cannot be loaded: {self._log.tail()}", "", remedy)
        loaded: tensorrt.ICudaEngine = engine
        return loaded

    @property
    def work_bytes(self) -> int:
        """Device memory of one context, activations and workspace, for the largest shapes of the profile."""
        size = getattr(self._engine, "device_memory_size_v2", None)  # 10.1 and newer
        return int(self._engine.device_memory_size if size is None else size)

    def _stream_weights(self, free: int) -> None:
        """Keep as many weights on the device as fit beside activations and workspace; the rest come from the host."""
        budget = max(0, min(int(self._engine.streamable_weights_size), free - self.work_bytes - MARGIN_BYTES))
        self._engine.weight_streaming_budget_v2 = budget
        if int(self._engine.weight_streaming_budget_v2) != budget:
            raise EdgeAdError(f"{self._what}: no weights can be streamed: {self._log.tail()}")

    def set_input(self, name: str, shape: tuple[int, ...], address: int) -> None:
        """Shape and device address of an input."""
        if not self._context.set_input_shape(name, shape):
            raise EdgeAdError(f"{self._what}: input '{name}' of shape {shape}: {self._log.tail()}", "a built shape")
        self._address(name, address)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an output, once every input's shape is set."""
        shape = tuple(trt.sizes(self._context.get_tensor_shape(name)))
        if any(d < 0 for d in shape):
            raise EdgeAdError(f"{self._what}: the shape of output '{name}' is not known: {shape}")
        return shape

    def set_output(self, name: str, address: int) -> None:
        """Device address of an output."""
        self._address(name, address)

    def execute(self, stream: int) -> None:
        """Queue one run on a stream."""
        if not self._context.execute_async_v3(stream):
            raise EdgeAdError(f"{self._what} failed to run: {self._log.tail()}")

    def _address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise EdgeAdError(f"{self._what}: no address could be set for '{name}': {self._log.tail()}")
