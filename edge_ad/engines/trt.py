"""Everything that differs between TensorRT 10.3-10.16, 11.x and TensorRT-RTX, and every call that can fail quietly.

All three speak one API (``tensorrt`` or ``tensorrt_rtx``). Precision comes from the graph alone: networks are strongly
typed (always so in 11.x; the flag exists in all three) and TF32 is switched off, because it would round the float32
products of LayerNorm's neighbours and of the distances to 10 bits of mantissa.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.bundle.manifest import TensorSpec
from edge_ad.errors import EdgeAdError, missing_package

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
PORTABLE = "portable"
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
Range = tuple[int, int, int]


@dataclass(frozen=True)
class KnownFault:
    """TensorRT versions in ``lowest <= version < below`` with a reported fault, on one compute capability or all."""

    lowest: tuple[int, ...]
    below: tuple[int, ...]
    compute_capability: tuple[int, int] | None
    text: str


KNOWN_FAULTS = (
    KnownFault((10, 3), (10, 5), None, "is reported to give wrong results on vision transformers, silently"),
    KnownFault((10, 13, 3), (10, 13, 4), (8, 7), "is reported to hold no kernels for SM 8.7 (Orin)"),
    KnownFault((10,), (10, 16, 2), (12, 0), "is reported to miscompile fused attention on SM 12.0"),
)


@dataclass(frozen=True)
class Plan:
    """A serialised engine, its I/O as the network declared it, and the builder's flags that were on."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flags: tuple[str, ...]
    profile: Mapping[str, Sequence[Sequence[int]]]


def load_module(backend: str) -> Any:
    """Import ``tensorrt`` or ``tensorrt_rtx``; one clear error when it is absent or cannot be loaded."""
    package = PACKAGES[backend]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as e:
        if e.name is not None and e.name.split(".")[0].startswith("tensorrt"):
            if platform.machine() == "aarch64":  # JetPack's packages, which no virtual environment sees by itself
                raise EdgeAdError(
                    f"the package '{package}' is not visible to this Python",
                    "JetPack's own TensorRT",
                    "run: sudo apt install python3-libnvinfer, and use a venv made with --system-site-packages",
                ) from None
            raise missing_package(package, backend) from None
        raise EdgeAdError(f"the package '{package}' cannot be loaded ({e})", "", f"reinstall {package}") from None
    except (ImportError, OSError, RuntimeError) as e:
        raise EdgeAdError(f"the package '{package}' cannot be loaded ({e})", "", f"reinstall {package}") from None


def version(module: Any) -> str:
    """Version of an imported TensorRT, e.g. ``"10.13.3.9"``."""
    return str(module.__version__)


def known_faults(backend: str, version_text: str, capability: tuple[int, int] | None) -> tuple[str, ...]:
    """What is known against this TensorRT on this device, one sentence each; empty for most."""
    if backend != "tensorrt":
        return ()
    digits = []
    for part in version_text.split("."):
        if not part.isdigit():
            break
        digits.append(int(part))
    number = tuple(digits)
    return tuple(
        f"TensorRT {version_text} {fault.text}"
        for fault in KNOWN_FAULTS
        if fault.lowest <= number < fault.below
        and (fault.compute_capability is None or fault.compute_capability == capability)
    )


class _Log:
    """Collects what TensorRT says, so that a quiet failure can be explained."""

    def __init__(self, module: Any) -> None:
        messages: list[str] = []
        levels = (module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR)

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in levels:
                    messages.append(message.strip())

        self.messages = messages
        self.logger: Any = Logger()

    def tail(self) -> str:
        """The last errors, on one line."""
        return " | ".join(self.messages[-3:]).replace("\n", " ") or "TensorRT gave no reason"


def _compute_capabilities(module: Any, config: Any, capabilities: Sequence[tuple[int, int]]) -> None:
    """Set the targets of a TensorRT-RTX plan; they need no GPU at hand."""
    kinds = module.ComputeCapability.__members__
    known = [f"{n[2:-1]}.{n[-1]}" for n in kinds if n.startswith("SM")]
    for major, minor in capabilities:
        if f"{major}.{minor}" not in known:
            raise EdgeAdError(
                f"TensorRT-RTX {version(module)} builds no engine for compute capability {major}.{minor}",
                f"one of {', '.join(known)}",
                "use --backend tensorrt on a board like that",
            )
    config.num_compute_capabilities = len(capabilities)
    for i, (major, minor) in enumerate(capabilities):
        kind = kinds[f"SM{major}{minor}"]
        if config.set_compute_capability(kind, i) is False or config.get_compute_capability(i) != kind:
            raise EdgeAdError(f"TensorRT-RTX {version(module)} refused compute capability {major}.{minor}")


def _spec(tensor: Any) -> TensorSpec:
    shape = tuple(f"d{i}" if int(d) < 0 else int(d) for i, d in enumerate(tensor.shape))
    kind = str(tensor.dtype).rsplit(".", 1)[-1]
    return TensorSpec(str(tensor.name), shape, _DTYPES.get(kind, kind.lower()))


def _parse(module: Any, log: _Log, network: Any, onnx_path: Path) -> Any:
    """Parse a graph into the network; the parser's own errors, with node names, become one line."""
    parser = module.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(onnx_path)):
        return parser
    faults = []
    for i in range(parser.num_errors):
        error = parser.get_error(i)
        faults.append(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}".replace("\n", " "))
    detail = " | ".join(faults[:3]) or log.tail()
    raise EdgeAdError(
        f"TensorRT cannot parse {onnx_path}: {detail}", "", "run edge-ad export again, with the opset it names"
    )


def _profile(builder: Any, network: Any, config: Any, rows: Range) -> dict[str, list[list[int]]]:
    """One optimisation profile over the free dimensions; empty when every shape is fixed."""
    shapes: dict[str, list[list[int]]] = {}
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        dims = [int(d) for d in tensor.shape]
        if any(d < 0 for d in dims):
            shapes[str(tensor.name)] = [[r if d < 0 else d for d in dims] for r in rows]
    if not shapes:
        return {}
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in shapes.items():
        if profile.set_shape(name, low, usual, high) is False:
            raise EdgeAdError(f"TensorRT refused the row counts {rows} of input '{name}'", "min <= opt <= max")
    if config.add_optimization_profile(profile) < 0:
        raise EdgeAdError(f"TensorRT refused the row counts {rows}", "min <= opt <= max")
    return shapes


def build_plan(
    backend: str,
    onnx_path: Path,
    *,
    rows: Range = (1, 4096, 65536),
    workspace_mb: int | None = None,
    capabilities: Sequence[tuple[int, int]] = (),
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Build a plan from an ONNX graph.

    Parameters
    ----------
    backend : ``"tensorrt"`` (needs the GPU that will run the plan) or ``"tensorrt-rtx"`` (needs none).
    rows : least, usual and greatest size of every free dimension.
    workspace_mb : cap on the builder's and the engine's scratch memory, MiB; None: TensorRT's own.
    capabilities : targets of a TensorRT-RTX plan; empty: its portable default. Ignored by ``tensorrt``.

    Raises
    ------
    EdgeAdError
        Package absent, no device (``tensorrt``), a graph that does not parse, a target that the package does not
        know, or no plan; with what TensorRT itself said.
    """
    module = load_module(backend)
    log = _Log(module)
    try:
        builder = module.Builder(log.logger)
    except (TypeError, RuntimeError) as e:  # pybind's answer when the library returns null
        raise EdgeAdError(f"{backend} cannot start a builder ({e}): {log.tail()}") from None
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if network is None:
        raise EdgeAdError(f"{backend} {version(module)} gave no network: {log.tail()}")
    parser = _parse(module, log, network, onnx_path)
    config = builder.create_builder_config()
    if workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    if hasattr(module.BuilderFlag, "TF32"):
        config.clear_flag(module.BuilderFlag.TF32)
    if backend == "tensorrt-rtx" and capabilities:
        _compute_capabilities(module, config, capabilities)
    profile = _profile(builder, network, config, rows)
    inputs = tuple(_spec(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(i)) for i in range(network.num_outputs))
    flags = tuple(n for n, f in module.BuilderFlag.__members__.items() if config.get_flag(f))
    if progress:
        progress(f"building {onnx_path.name} with {backend} {version(module)}")
    memory = builder.build_serialized_network(network, config)
    del parser  # it owns weights that the network reads until here
    if memory is None:
        raise EdgeAdError(f"{backend} {version(module)} built no engine from {onnx_path}: {log.tail()}")
    return Plan(bytes(memory), inputs, outputs, flags, profile)


class Engine:
    """A deserialised plan with one execution context; needs a current CUDA context. I/O goes by name.

    Raises
    ------
    EdgeAdError
        TensorRT refuses the plan or gives no context; with what it said.
    """

    def __init__(self, backend: str, plan: bytes, what: str) -> None:
        module = load_module(backend)
        self._log = _Log(module)
        self._what = what
        remedy = f"build it again on this device: edge-ad build-engine BUNDLE --backend {backend} --force"
        self._runtime = module.Runtime(self._log.logger)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EdgeAdError(f"{what} cannot be loaded: {self._log.tail()}", "", remedy)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EdgeAdError(f"{what} has no memory to run in: {self._log.tail()}", "", "close programs on the GPU")
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            is_input = self._engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
            shape = tuple(f"d{j}" if d < 0 else int(d) for j, d in enumerate(self._engine.get_tensor_shape(name)))
            kind = str(self._engine.get_tensor_dtype(name)).rsplit(".", 1)[-1]
            (self.inputs if is_input else self.outputs).append(TensorSpec(name, shape, _DTYPES.get(kind, kind.lower())))

    def set_input(self, name: str, shape: tuple[int, ...], address: int) -> None:
        """Shape and device address of an input."""
        if not self._context.set_input_shape(name, shape):
            raise EdgeAdError(f"{self._what}: input '{name}' of shape {shape}: {self._log.tail()}", "a built shape")
        self._address(name, address)

    def output_shape(self, name: str) -> tuple[int, ...]:
        """Shape of an output, once every input's shape is set."""
        shape = tuple(int(d) for d in self._context.get_tensor_shape(name))
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
