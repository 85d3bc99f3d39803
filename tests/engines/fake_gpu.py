"""A stand-in for PyCUDA and TensorRT on a machine without a GPU: device memory is host memory, and a plan runs as the
ONNX graph it names, in ONNX Runtime. It shows that tensors, shapes, addresses and refusals are handled in the order
that TensorRT wants; it says nothing about TensorRT's own numbers."""

from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edge_ad.runtime import cuda

CAPABILITY = (8, 6)
VERSION = "1.7.1.116"


class FakeDriver(types.ModuleType):
    """What edge_ad.runtime.cuda calls of ``pycuda.driver``."""

    class MemoryError(Exception):  # noqa: A001  PyCUDA's own name
        pass

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.depth = 0
        self.allocated = 0
        self.limit = 1 << 40
        driver = self

        class Allocation:
            def __init__(self, size: int) -> None:
                if driver.depth < 1:
                    raise RuntimeError("no current context")
                if size > driver.limit:
                    raise driver.MemoryError
                self.memory: Any = ctypes.create_string_buffer(size)
                driver.allocated += 1

            def __int__(self) -> int:
                return ctypes.addressof(self.memory)

            def free(self) -> None:
                driver.allocated -= 1

        class Context:
            @staticmethod
            def pop() -> None:
                driver.depth -= 1

            def push(self) -> None:
                driver.depth += 1

        class Stream:
            handle = 7

            def synchronize(self) -> None:
                assert driver.depth > 0

        self.Context, self.Stream, self.mem_alloc = Context, Stream, Allocation
        self.Device = lambda index: types.SimpleNamespace(retain_primary_context=Context)

    def init(self) -> None:
        pass

    def mem_get_info(self) -> tuple[int, int]:
        return 3 << 20, 8 << 20

    def memcpy_htod_async(self, address: int, array: np.ndarray, stream: Any) -> None:
        assert array.flags.c_contiguous and self.depth > 0
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array: np.ndarray, address: int, stream: Any) -> None:
        assert self.depth > 0
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


class FakeEngine:
    """An ``ICudaEngine`` and its ``IExecutionContext`` in one; ``fails`` names the calls that answer False."""

    def __init__(self, onnx: Path, fails: set[str]) -> None:
        self.session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        self.ins = {t.name: t for t in self.session.get_inputs()}
        self.outs = {t.name: t for t in self.session.get_outputs()}
        self.names = [*self.ins, *self.outs]
        self.num_io_tensors = len(self.names)
        self.fails = fails
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def create_execution_context(self) -> Any:
        return None if "create_execution_context" in self.fails else self

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name in self.ins else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.FLOAT"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        tensor = {**self.ins, **self.outs}[name]
        free = next(iter(self.shapes.values()), (-1,))[0]
        return tuple(d if isinstance(d, int) else free for d in tensor.shape)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return "set_input_shape" not in self.fails

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return "set_tensor_address" not in self.fails and address != 0

    def execute_async_v3(self, stream: int) -> bool:
        if "execute_async_v3" in self.fails or stream != 7:
            return False
        feed = {}
        for name in self.ins:
            flat = (ctypes.c_float * int(np.prod(self.shapes[name]))).from_address(self.addresses[name])
            feed[name] = np.frombuffer(flat, np.float32).reshape(self.shapes[name])
        for name, result in zip(self.outs, self.session.run(list(self.outs), feed)):
            ctypes.memmove(self.addresses[name], result.ctypes.data, result.nbytes)
        return True


def fake_tensorrt(onnx_dir: Path, fails: set[str]) -> types.ModuleType:
    """A module with what :class:`edge_ad.engines.trt.Engine` calls; a plan's bytes are the name of a graph."""
    module: Any = types.ModuleType("tensorrt_rtx")
    module.__version__ = VERSION
    severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)
    module.ILogger = type("ILogger", (), {"Severity": severity, "__init__": lambda self: None})
    module.TensorIOMode = types.SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")

    class Runtime:
        loaded: list[bytes] = []

        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
            Runtime.loaded.append(plan)
            if "deserialize_cuda_engine" in fails:
                self.logger.log(severity.ERROR, "Version tag does not match\nNote: current 5, serialized 4")
                return None
            return FakeEngine(onnx_dir / f"{plan.decode()}.onnx", fails)

    module.Runtime = Runtime
    return module  # type: ignore[no-any-return]


def install(monkeypatch: pytest.MonkeyPatch, onnx_dir: Path, fails: set[str]) -> tuple[FakeDriver, Any]:
    """Put a fake device, driver and TensorRT-RTX in place for one test."""
    driver = FakeDriver()
    package: Any = types.ModuleType("pycuda")
    package.driver = driver
    module = fake_tensorrt(onnx_dir, fails)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("Fake GPU", CAPABILITY, 8 << 30))
    return driver, module
