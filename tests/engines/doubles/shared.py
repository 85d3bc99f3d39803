"""The doubles' world, and what builder and runtime share: enumerations, memory, tensors."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import onnxruntime


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


TYPES = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF, "tensor(int64)": DataType.INT64}


def open_session(path: Path) -> Any:
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
        return TYPES[self._tensor.type]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else -1 for d in self._tensor.shape)

    def get_dimension_name(self, index: int) -> str:
        size = self._tensor.shape[index]
        return "" if isinstance(size, int) else str(size)
