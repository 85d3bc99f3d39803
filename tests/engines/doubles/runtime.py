"""A plan at work: the runtime, the engine, its execution context."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from tests.engines.doubles.shared import (
    TYPES,
    DataType,
    ILogger,
    ITensor,
    Severity,
    TensorIOMode,
    World,
    open_session,
)

STREAM = 7
NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64}


class Runtime:
    __slots__ = ("_logger", "_world")
    world: World

    def __init__(self, logger: ILogger) -> None:
        self._logger, self._world = logger, type(self).world

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self._world.loaded.append(bytes(serialized_engine))
        if "deserialize_cuda_engine" in self._world.fails:
            self._logger.log(Severity.ERROR, "Version tag does not match\nNote: current 5, serialized 4")
            return None
        return ICudaEngine(self._world, self._world.path(serialized_engine))


class ICudaEngine:
    __slots__ = ("_budget", "_ins", "_outs", "_session", "_world")

    def __init__(self, world: World, path: Path) -> None:
        self._world, self._session = world, open_session(path)
        self._ins = {t.name: t for t in self._session.get_inputs()}
        self._outs = {t.name: t for t in self._session.get_outputs()}
        self._budget = world.streamable

    @property
    def num_io_tensors(self) -> int:
        return len(self._ins) + len(self._outs)

    @property
    def device_memory_size_v2(self) -> int:
        return self._world.work_bytes

    @property
    def streamable_weights_size(self) -> int:
        return self._world.streamable

    @property
    def weight_streaming_budget_v2(self) -> int:
        return self._budget

    @weight_streaming_budget_v2.setter
    def weight_streaming_budget_v2(self, value: int) -> None:
        if "weight_streaming_budget_v2" not in self._world.fails:
            self._budget = value

    def create_execution_context(self) -> IExecutionContext | None:
        return None if "create_execution_context" in self._world.fails else IExecutionContext(self)

    def get_tensor_name(self, index: int) -> str:
        return [*self._ins, *self._outs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._ins else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return TYPES[{**self._ins, **self._outs}[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return ITensor({**self._ins, **self._outs}[name]).shape


class IExecutionContext:
    __slots__ = ("_addresses", "_engine", "_shapes")

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    @property
    def _fails(self) -> set[str]:
        return self._engine._world.fails

    def set_input_shape(self, name: str, shape: Any) -> bool:
        built = self._engine.get_tensor_shape(name)
        fits = len(built) == len(shape) and all(b in (-1, s) for b, s in zip(built, shape))
        if name not in self._engine._ins or not fits or "set_input_shape" in self._fails:
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        built = self._shapes.get(name) or self._engine.get_tensor_shape(name)
        names = {}  # what each free dimension is, by the name that the inputs give it
        for key, shape in self._shapes.items():
            names.update({d: n for d, n in zip(self._engine._ins[key].shape, shape) if isinstance(d, str)})
        tensor = {**self._engine._ins, **self._engine._outs}[name]
        return tuple(names.get(d, b) if b < 0 else b for d, b in zip(tensor.shape, built))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return "set_tensor_address" not in self._fails and memory != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine = self._engine
        ready = set(self._shapes) == set(engine._ins) and set(self._addresses) == {*engine._ins, *engine._outs}
        if "execute_async_v3" in self._fails or stream_handle != STREAM or not ready:
            return False
        feed = {}
        for name in engine._ins:
            dtype, shape = np.dtype(NUMPY[engine.get_tensor_dtype(name)]), self._shapes[name]
            size = int(np.prod(shape)) * dtype.itemsize
            raw = (ctypes.c_byte * size).from_address(self._addresses[name])
            feed[name] = np.frombuffer(raw, dtype).reshape(shape)
        for name, result in zip(engine._outs, engine._session.run(list(engine._outs), feed)):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(result).ctypes.data, result.nbytes)
        return True
