"""TensorRT without a GPU: classes that take a plan for the path (or name) of an ONNX file and run it in ONNX Runtime.

Names, methods and parameters are TensorRT's own; ``test_doubles.py`` holds them against the real ``tensorrt_rtx`` and
the stubs of TensorRT 10. They are as strict as the original: an unknown attribute cannot be set, shapes outside of the
profile are refused, and nothing runs before every shape and address was given. They say nothing about TensorRT's own
numbers. A call named in ``World.fails`` answers False or None.
"""

from __future__ import annotations

import ctypes
import enum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

STREAM = 7


class World:
    """What one test changes: failing calls, the folder of named plans, and what was asked of TensorRT."""

    def __init__(self, folder: Path, fails: set[str]) -> None:
        self.folder, self.fails = folder, fails
        self.loaded: list[bytes] = []
        self.timing: list[bytes] = []
        self.errors: list[tuple[str, str, str]] = []
        self.work_bytes = 1 << 20
        self.streamable = 0

    def path(self, plan: bytes) -> Path:
        """The ONNX file that a plan stands for."""
        text = plan.decode()
        return Path(text) if text.startswith("/") else self.folder / f"{text}.onnx"


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None: ...

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT64 = 8


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 1
    WEIGHT_STREAMING = 2


_TYPES = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(int64)": DataType.INT64}
_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64}


def _open(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class IHostMemory:
    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return self._data


class ITensor:
    __slots__ = ("_tensor",)

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    @property
    def name(self) -> str:
        return str(self._tensor.name)

    @property
    def dtype(self) -> DataType:
        return _TYPES[self._tensor.type]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else -1 for d in self._tensor.shape)

    def get_dimension_name(self, index: int) -> str:
        size = self._tensor.shape[index]
        return "" if isinstance(size, int) else str(size)


class INetworkDefinition:
    __slots__ = ("_path", "_session", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._path, self._session = world, Path(), None

    @property
    def num_inputs(self) -> int:
        return len(self._session.get_inputs())

    @property
    def num_outputs(self) -> int:
        return len(self._session.get_outputs())

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._session.get_inputs()[index])

    def get_output(self, index: int) -> ITensor:
        return ITensor(self._session.get_outputs()[index])


class ParserError:
    __slots__ = ("_error",)

    def __init__(self, error: tuple[str, str, str]) -> None:
        self._error = error

    def node_name(self) -> str:
        return self._error[0]

    def node_operator(self) -> str:
        return self._error[1]

    def desc(self) -> str:
        return self._error[2]


class OnnxParser:
    __slots__ = ("_network",)

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    def parse_from_file(self, model: str) -> bool:
        self._network._path = Path(model)
        if "parse_from_file" in self._network._world.fails:
            return False
        self._network._session = _open(Path(model))
        return True

    @property
    def num_errors(self) -> int:
        return len(self._network._world.errors)

    def get_error(self, index: int) -> ParserError:
        return ParserError(self._network._world.errors[index])


class IOptimizationProfile:
    __slots__ = ("_shapes", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._shapes = world, {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002  TensorRT's own names
        if "set_shape" not in self._world.fails:
            self._shapes[input] = [tuple(min), tuple(opt), tuple(max)]

    def get_shape(self, input: str) -> list[tuple[int, ...]]:  # noqa: A002
        return self._shapes.get(input, [])

    def __bool__(self) -> bool:
        return all(a <= b <= c for shapes in self._shapes.values() for a, b, c in zip(*shapes))


class ITimingCache:
    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data)


class IBuilderConfig:
    __slots__ = ("_cache", "_flags", "_limits", "_profiles", "_world")

    def __init__(self, world: World) -> None:
        self._world, self._cache = world, None
        self._flags: set[Any] = {BuilderFlag.TF32}
        self._limits: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []

    def set_flag(self, flag: Any) -> None:
        if "set_flag" not in self._world.fails:
            self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool] = pool_size << ("set_memory_pool_limit" in self._world.fails)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._limits[pool]

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile or "add_optimization_profile" in self._world.fails:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._data.startswith(b"other device") and not ignore_mismatch:
            return False
        self._world.timing.append(cache._data)
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return None if self._cache is None else ITimingCache(self._cache._data + b"timed ")


class Builder:
    __slots__ = ("_logger", "_world")
    world: World

    def __init__(self, logger: ILogger) -> None:
        self._logger, self._world = logger, type(self).world

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return None if "create_network" in self._world.fails else INetworkDefinition(self._world)

    def create_builder_config(self) -> IBuilderConfig | None:
        return None if "create_builder_config" in self._world.fails else IBuilderConfig(self._world)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile(self._world)

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        free = any(-1 in network.get_input(i).shape for i in range(network.num_inputs))
        if "build_serialized_network" in self._world.fails or (free and not config._profiles):
            self._logger.log(Severity.ERROR, "no kernel\nfits")
            return None
        return IHostMemory(str(network._path).encode())


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
        self._world, self._session = world, _open(path)
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
        return _TYPES[{**self._ins, **self._outs}[name].type]

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
            dtype, shape = np.dtype(_NUMPY[engine.get_tensor_dtype(name)]), self._shapes[name]
            size = int(np.prod(shape)) * dtype.itemsize
            raw = (ctypes.c_byte * size).from_address(self._addresses[name])
            feed[name] = np.frombuffer(raw, dtype).reshape(shape)
        for name, result in zip(engine._outs, engine._session.run(list(engine._outs), feed)):
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(result).ctypes.data, result.nbytes)
        return True
