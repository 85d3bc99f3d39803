"""TensorRT without a GPU: classes that take a plan for the path (or name) of an ONNX file and run it in ONNX Runtime.

Names, methods and parameters are TensorRT's own; ``test_doubles.py`` holds them against the real ``tensorrt_rtx`` and
the stubs of TensorRT 10. They are as strict as the original: an unknown attribute cannot be set, shapes outside of the
profile are refused, and nothing runs before every shape and address was given. They say nothing about TensorRT's own
numbers. A call named in ``World.fails`` answers False or None.
"""

from tests.engines.doubles.builder import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITimingCache,
    OnnxParser,
    ParserError,
)
from tests.engines.doubles.runtime import STREAM, ICudaEngine, IExecutionContext, Runtime
from tests.engines.doubles.shared import (
    BuilderFlag,
    DataType,
    IHostMemory,
    ILogger,
    ITensor,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    Severity,
    TensorIOMode,
    World,
)

__all__ = [
    "STREAM", "Builder", "BuilderFlag", "DataType", "IBuilderConfig", "ICudaEngine", "IExecutionContext",
    "IHostMemory", "ILogger", "INetworkDefinition", "IOptimizationProfile", "ITensor", "ITimingCache",
    "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "Runtime", "Severity",
    "TensorIOMode", "World",
]  # fmt: skip
