"""Everything that differs between TensorRT 10.3-10.16, 11.x and TensorRT-RTX, and the builder that they share.

All three speak one API (``tensorrt`` or ``tensorrt_rtx``). Precision comes from the graph alone: networks are strongly
typed (always so in 11.x; the flag exists in all three) and TF32 is switched off, because it would round the float32
products of LayerNorm's neighbours and of the distances to 10 bits of mantissa. Every bool and None that comes back is
checked. Annotations name the classes of ``tensorrt``; a test holds them against the published stubs of TensorRT 10.
"""

from __future__ import annotations

import importlib
import platform
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_ad.bundle.manifest import TensorSpec
from edge_ad.engines.known_faults import KNOWN_FAULTS, known_faults
from edge_ad.errors import EdgeAdError, missing_package
from edge_ad.files import write_bytes

if TYPE_CHECKING:
    import tensorrt

__all__ = ["KNOWN_FAULTS", "BuildOptions", "Log", "Plan", "build_plan", "known_faults", "load_module", "version"]

PACKAGES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
PORTABLE = "portable"
BATCH = "batch"
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
Range = tuple[int, int, int]


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is built.

    rows, batch : least, usual and greatest size of a free dimension: one named ``batch``, and every other.
    workspace_mb : cap on scratch memory of the builder and the engine, MiB; None: TensorRT's own.
    capabilities : targets of a TensorRT-RTX plan; empty: its portable default. Ignored by ``tensorrt``.
    timing_cache : file that remembers how long kernels took; read, and written back. Ignored by ``tensorrt-rtx``,
        whose builder times nothing.
    weight_streaming : the plan may keep part of its weights in host memory when it runs.
    """

    rows: Range = (1, 4096, 65536)
    batch: Range = (1, 1, 1)
    workspace_mb: int | None = None
    capabilities: tuple[tuple[int, int], ...] = ()
    timing_cache: Path | None = None
    weight_streaming: bool = False


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
        module = importlib.import_module(package)
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
    if not hasattr(module, "__version__"):  # a folder of type stubs, or what an uninstalled package left behind
        raise missing_package(package, backend)
    return module


def version(module: Any) -> str:
    """Version of an imported TensorRT, e.g. ``"10.13.3.9"``."""
    return str(module.__version__)


class Log:
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


def dtype_name(dtype: tensorrt.DataType) -> str:
    """NumPy's name of a TensorRT data type."""
    kind = str(dtype.name)
    return _DTYPES.get(kind, kind.lower())


def sizes(dims: tensorrt.Dims) -> list[int]:
    """The sizes of a shape; -1 where it is free."""
    return [int(dims[i]) for i in range(len(dims))]


def _spec(tensor: tensorrt.ITensor) -> TensorSpec:
    shape = tuple(f"d{i}" if d < 0 else d for i, d in enumerate(sizes(tensor.shape)))
    return TensorSpec(str(tensor.name), shape, dtype_name(tensor.dtype))


def _parse(module: Any, log: Log, network: tensorrt.INetworkDefinition, onnx_path: Path) -> tensorrt.OnnxParser:
    """Parse a graph into the network; the parser's own errors, with node names, become one line."""
    parser: tensorrt.OnnxParser = module.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(onnx_path)):
        return parser
    faults = []
    for i in range(parser.num_errors):
        error: tensorrt.ParserError = parser.get_error(i)
        faults.append(f"node '{error.node_name()}' ({error.node_operator()}): {error.desc()}".replace("\n", " "))
    detail = " | ".join(faults[:3]) or log.tail()
    raise EdgeAdError(
        f"TensorRT cannot parse {onnx_path}: {detail}", "", "run edge-ad export again, with the opset it names"
    )


def _profile(
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    options: BuildOptions,
    log: Log,
) -> dict[str, list[list[int]]]:
    """One optimisation profile over the free dimensions; empty when every shape is fixed."""
    shapes: dict[str, list[list[int]]] = {}
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        dims = sizes(tensor.shape)
        bounds = [options.batch if tensor.get_dimension_name(j) == BATCH else options.rows for j in range(len(dims))]
        if any(d < 0 for d in dims):
            shapes[str(tensor.name)] = [[b[k] if d < 0 else d for d, b in zip(dims, bounds)] for k in range(3)]
    if not shapes:
        return {}
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in shapes.items():
        profile.set_shape(name, low, usual, high)  # type: ignore[arg-type]  # a list becomes Dims
        if [sizes(shape) for shape in profile.get_shape(name)] != [low, usual, high]:
            raise EdgeAdError(f"TensorRT refused the shapes {low}, {usual}, {high} of input '{name}': {log.tail()}")
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EdgeAdError(f"TensorRT refused the shapes {shapes}: {log.tail()}", "min <= opt <= max in every dimension")
    return shapes


def _workspace(module: Any, config: tensorrt.IBuilderConfig, megabytes: int) -> None:
    pool = module.MemoryPoolType.WORKSPACE
    config.set_memory_pool_limit(pool, megabytes << 20)
    kept = config.get_memory_pool_limit(pool)
    if kept > megabytes << 20:
        raise EdgeAdError(f"TensorRT keeps a workspace of {kept >> 20} MB", f"{megabytes} MB, as asked for")


def _flags(module: Any, config: tensorrt.IBuilderConfig, options: BuildOptions) -> tuple[str, ...]:
    """Set and clear the builder's flags; the names of those that are on."""
    wanted = {"TF32": False, "WEIGHT_STREAMING": options.weight_streaming}
    for name, on in wanted.items():
        flag = getattr(module.BuilderFlag, name, None)
        if flag is None:
            if on:
                raise EdgeAdError(f"this TensorRT {version(module)} has no flag {name}", "10.1 or newer")
            continue
        config.set_flag(flag) if on else config.clear_flag(flag)
        if config.get_flag(flag) is not on:
            raise EdgeAdError(f"TensorRT {version(module)} refused to set {name} to {on}")
    return tuple(n for n, f in module.BuilderFlag.__members__.items() if config.get_flag(f))


def _load_timing(config: tensorrt.IBuilderConfig, path: Path, say: Callable[[str], None]) -> None:
    """Attach the timing cache of a file, or an empty one where the file is absent or of another device."""
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        say(f"the timing cache {path} is not this device's: it is made anew")
        cache = config.create_timing_cache(b"")
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            say("TensorRT takes no timing cache: building goes on without")


def _save_timing(config: tensorrt.IBuilderConfig, path: Path, say: Callable[[str], None]) -> None:
    cache = config.get_timing_cache()
    memory = None if cache is None else cache.serialize()
    if memory is None:
        return
    try:
        write_bytes(path, bytes(memory))
    except EdgeAdError as e:  # it only saves time
        say(f"warning: the timing cache was not kept: {e}")


def build_plan(
    backend: str,
    onnx_path: Path,
    options: BuildOptions | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> Plan:
    """Build a plan from an ONNX graph.

    Parameters
    ----------
    backend : ``"tensorrt"`` (needs the GPU that will run the plan) or ``"tensorrt-rtx"`` (needs none).

    Raises
    ------
    EdgeAdError
        Package absent, no device (``tensorrt``), a graph that does not parse, a target that the package does not
        know, or no plan; with what TensorRT itself said.
    """
    options, say = options or BuildOptions(), progress or (lambda _: None)
    module = load_module(backend)
    who = f"{backend} {version(module)}"
    log = Log(module)
    try:
        builder: tensorrt.Builder = module.Builder(log.logger)
    except (TypeError, RuntimeError) as e:  # pybind's answer when the library returns null
        raise EdgeAdError(f"{backend} cannot start a builder ({e}): {log.tail()}") from None
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    if network is None or config is None:
        raise EdgeAdError(f"{who} gave no network: {log.tail()}")
    parser = _parse(module, log, network, onnx_path)
    if options.workspace_mb is not None:
        _workspace(module, config, options.workspace_mb)
    flags = _flags(module, config, options)
    if backend == "tensorrt-rtx" and options.capabilities:
        _compute_capabilities(module, config, options.capabilities)
    timing = options.timing_cache if backend == "tensorrt" else None
    if timing is not None:
        _load_timing(config, timing, say)
    profile = _profile(builder, network, config, options, log)
    inputs = tuple(_spec(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(network.get_output(i)) for i in range(network.num_outputs))
    say(f"building {onnx_path.name} with {who}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        memory = builder.build_serialized_network(network, config)
    del parser  # it owns weights that the network reads until here
    if memory is None or memory.nbytes == 0:
        raise EdgeAdError(f"{who} built no engine from {onnx_path}: {log.tail()}")
    if timing is not None:
        _save_timing(config, timing, say)
    return Plan(bytes(memory), inputs, outputs, flags, profile)
