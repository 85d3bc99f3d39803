"""A stand-in for PyCUDA on a machine without a GPU (device memory is host memory), and the doubles of TensorRT as its
module. It shows that tensors, shapes, addresses and refusals are handled in the order that TensorRT wants."""

from __future__ import annotations

import ctypes
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_ad.runtime import cuda
from tests.engines import doubles

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
        self.free = 3 << 30
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
            handle = doubles.STREAM

            def synchronize(self) -> None:
                assert driver.depth > 0

        self.Context, self.Stream, self.mem_alloc = Context, Stream, Allocation
        self.Device = lambda index: types.SimpleNamespace(retain_primary_context=Context)

    def init(self) -> None:
        pass

    def mem_get_info(self) -> tuple[int, int]:
        return self.free, 8 << 30

    def memcpy_htod_async(self, address: int, array: np.ndarray, stream: Any) -> None:
        assert array.flags.c_contiguous and self.depth > 0
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array: np.ndarray, address: int, stream: Any) -> None:
        assert self.depth > 0
        ctypes.memmove(array.ctypes.data, address, array.nbytes)


def fake_tensorrt(world: doubles.World, name: str, version: str) -> types.ModuleType:
    """A module of the doubles; its ``world`` belongs to one test."""
    module: Any = types.ModuleType(name)
    module.__version__, module.world = version, world
    for key, value in vars(doubles).items():
        if isinstance(value, type) and value is not doubles.World:
            setattr(module, key, value)
    module.Builder = type("Builder", (doubles.Builder,), {"__slots__": (), "world": world})
    module.Runtime = type("Runtime", (doubles.Runtime,), {"__slots__": (), "world": world})
    return module  # type: ignore[no-any-return]


def install(
    monkeypatch: pytest.MonkeyPatch,
    onnx_dir: Path,
    fails: set[str],
    package: str = "tensorrt_rtx",
    version: str = VERSION,
) -> tuple[FakeDriver, Any]:
    """Put a fake device, driver and TensorRT in place for one test."""
    driver = FakeDriver()
    pycuda: Any = types.ModuleType("pycuda")
    pycuda.driver = driver
    pycuda.__spec__ = ModuleSpec("pycuda", None)
    module = fake_tensorrt(doubles.World(onnx_dir, fails), package, version)
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("Fake GPU", CAPABILITY, 8 << 30))
    return driver, module
