"""Building the engines of a bundle: every graph of one precision for one backend, as one folder or none."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad import __version__
from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.engines import trt
from edge_ad.engines.identity import SIDECAR, PlanRecord, Sidecar, engine_key
from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder, write_bytes, write_json
from edge_ad.runtime import cuda

BACKENDS = ("onnxruntime", "tensorrt-rtx", "tensorrt")
DEFAULT_CAPABILITY = (8, 6)
DEFAULT_ROWS = (1, 4096, 65536)


@dataclass(frozen=True)
class BuiltEngine:
    """One graph that was built: its plan (or ONNX file), size in bytes and seconds taken."""

    graph: str
    path: Path
    bytes: int
    seconds: float


def parse_capability(text: str) -> tuple[int, int]:
    """``"8.6"``, ``"86"`` or ``"SM86"`` -> (8, 6)."""
    match = re.fullmatch(r"(?:sm)?(\d{1,2}?)\.?(\d)", text.strip().lower())
    if not match:
        raise EdgeAdError(f"compute capability '{text}'", "a number like 8.6")
    return int(match[1]), int(match[2])


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _rows(bundle: Bundle, graph: str) -> tuple[int, int, int]:
    """Bounds of a graph's free dimensions: its ``meta["rows"]``, or 1 to 65536 with 4096 usual."""
    given = bundle.graph(graph).meta.get("rows")
    if given is None:
        return DEFAULT_ROWS
    try:
        low, usual, high = (int(given[k]) for k in ("min", "opt", "max"))
    except (KeyError, TypeError, ValueError):
        raise EdgeAdError(f"{bundle.where}: graph {graph}: rows {given!r}", "min, opt and max") from None
    if not 1 <= low <= usual <= high:
        raise EdgeAdError(f"{bundle.where}: graph {graph}: rows {given!r}", "1 <= min <= opt <= max")
    return low, usual, high


def _vacant(folder: Path, force: bool) -> Path:
    """``folder`` if an engine may be written there; said before minutes are spent on building it."""
    if folder.exists() and not force:
        raise EdgeAdError(f"engine {folder} was built before", "", "pass --force to build it again")
    return folder


def build_engines(
    bundle: Bundle,
    backend: str,
    precision: str = "fp32",
    *,
    compute_capability: Sequence[str] = (),
    workspace_mb: int | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[BuiltEngine]:
    """Build every graph of a bundle into ``engines/<key>/`` with its sidecar, as one folder or none.

    Parameters
    ----------
    bundle : an opened, verified bundle.
    backend : ``onnxruntime`` (nothing to build: the graphs are run once on random input), ``tensorrt-rtx`` (needs no
        GPU) or ``tensorrt`` (needs the GPU that will run the engines).
    precision : a precision whose graphs the bundle holds.
    compute_capability : targets of TensorRT-RTX ("8.6", ...), or ``("portable",)`` for its own list (8.0 and newer);
        empty: the GPU here, else 8.6.
    workspace_mb : cap on scratch memory, MiB; by default 1024 for ``tensorrt``, TensorRT-RTX's own otherwise.
    force : replace an engine of the same key.
    progress : called with a line for people.

    Raises
    ------
    EdgeAdError
        An unknown backend, a precision that the bundle lacks, a missing package or device, an engine that exists
        already, or whatever TensorRT said against a graph.
    """
    say = progress or (lambda _: None)
    if backend not in BACKENDS:
        raise EdgeAdError(f"unknown backend '{backend}'", f"one of {', '.join(BACKENDS)}")
    if not bundle.manifest.graphs:
        raise EdgeAdError(f"{bundle.where} holds no graphs", "", "run edge-ad export again")
    if workspace_mb is not None and workspace_mb < 1:
        raise EdgeAdError(f"workspace of {workspace_mb} MB", "at least 1 MB")
    for graph in bundle.manifest.graphs:
        bundle.graph_file(graph, precision)
        _rows(bundle, graph)
    if backend == "onnxruntime":
        if compute_capability:
            raise EdgeAdError("--compute-capability with onnxruntime", "it for tensorrt-rtx only")
        return _check_onnxruntime(bundle, precision, force, say)
    module = trt.load_module(backend)
    capabilities, device = _targets(backend, compute_capability, say)
    if backend == "tensorrt":
        workspace_mb = workspace_mb or 1024
    for fault in trt.known_faults(backend, trt.version(module), device):
        say(f"warning: {fault}; trust no engine of it that has not passed the golden frames")
    _preflight(bundle, precision, workspace_mb or 0, say)
    marks = tuple(c if isinstance(c, str) else f"{c[0]}.{c[1]}" for c in capabilities)
    folder = _vacant(bundle.path / "engines" / engine_key(backend, precision, marks), force)
    targets = [c for c in capabilities if not isinstance(c, str)]
    built: list[BuiltEngine] = []
    plans: dict[str, PlanRecord] = {}
    flags: tuple[str, ...] = ()
    with new_folder(folder, replace=force) as out:
        for graph in bundle.manifest.graphs:
            start = time.perf_counter()
            plan = trt.build_plan(
                backend,
                bundle.graph_path(graph, precision),
                rows=_rows(bundle, graph),
                workspace_mb=workspace_mb,
                capabilities=targets,
                progress=say,
            )
            seconds = round(time.perf_counter() - start, 3)
            write_bytes(out / f"{graph}.plan", plan.data)
            plans[graph] = PlanRecord(
                file=f"{graph}.plan",
                inputs=plan.inputs,
                outputs=plan.outputs,
                source_sha256=bundle.manifest.files[bundle.graph_file(graph, precision)],
                sha256=hashlib.sha256(plan.data).hexdigest(),
                bytes=len(plan.data),
                seconds=seconds,
                profile=plan.profile,
            )
            flags = plan.flags
            built.append(BuiltEngine(graph, folder / f"{graph}.plan", len(plan.data), seconds))
        sidecar = _sidecar(backend, trt.version(module), precision, marks, plans)
        write_json(out / SIDECAR, replace(sidecar, flags=flags, workspace_mb=workspace_mb).to_dict())
    return built


def _sidecar(
    backend: str, version: str, precision: str, marks: tuple[str, ...], plans: dict[str, PlanRecord]
) -> Sidecar:
    return Sidecar(
        backend=backend,
        version=version,
        precision=precision,
        capabilities=marks,
        flags=(),
        workspace_mb=None,
        built_on=f"{platform.system()} {platform.machine()}",
        created_by=f"edge-ad {__version__}",
        created_at=_now(),
        plans=plans,
    )


def _targets(
    backend: str, asked: Sequence[str], say: Callable[[str], None]
) -> tuple[list[tuple[int, int] | str], tuple[int, int] | None]:
    """What to build for, and the compute capability of the device here if there is one."""
    if backend == "tensorrt":
        device = cuda.require_device("TensorRT engines are built and run on")
        if asked and [parse_capability(a) for a in asked] != [device.compute_capability]:
            here = "{}.{}".format(*device.compute_capability)
            raise EdgeAdError(
                f"compute capability {', '.join(asked)} asked for",
                f"{here}, this device's ({device.name})",
                "build on the board that runs the engine, or use --backend tensorrt-rtx",
            )
        return [device.compute_capability], device.compute_capability
    found = cuda.find_device()
    here_capability = found.compute_capability if found else None
    if any(a.strip().lower() == trt.PORTABLE for a in asked):
        if len(asked) > 1:
            raise EdgeAdError(f"compute capability {', '.join(asked)}", "'portable' alone, or numbers")
        return [trt.PORTABLE], here_capability
    if asked:
        targets: list[tuple[int, int] | str] = []
        targets += sorted({parse_capability(a) for a in asked})
        return targets, here_capability
    if here_capability is not None:
        return [here_capability], here_capability
    say("no GPU here: building for compute capability 8.6 (name another with --compute-capability)")
    return [DEFAULT_CAPABILITY], None


def _preflight(bundle: Bundle, precision: str, workspace_mb: int, say: Callable[[str], None]) -> None:
    """Warn when the memory that is free cannot hold the largest build (weights in the network and in the plan)."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(re.findall(r"MemAvailable:\s+(\d+)", text)[0]) >> 10
    except (OSError, IndexError, ValueError):
        return
    sizes = {g: os.path.getsize(bundle.graph_path(g, precision)) >> 20 for g in bundle.manifest.graphs}
    graph = max(sizes, key=lambda g: sizes[g])
    need = 2 * sizes[graph] + workspace_mb
    if need > available:
        say(
            f"warning: building {graph} needs at least {need} MB (its weights twice and the workspace), {available} MB "
            "are free; close other programs or lower --workspace-mb"
        )


def _probe(specs: Sequence[TensorSpec], rows: int) -> dict[str, NDArray[Any]]:
    """Random input of a graph's declared shapes: normal floats, zero integers."""
    rng = np.random.default_rng(0)
    out: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(rows if isinstance(d, str) else d for d in spec.shape)
        dtype = np.dtype(spec.dtype)
        floating = np.issubdtype(dtype, np.floating)
        out[spec.name] = rng.standard_normal(shape).astype(dtype) if floating else np.zeros(shape, dtype)
    return out


def _check_onnxruntime(bundle: Bundle, precision: str, force: bool, say: Callable[[str], None]) -> list[BuiltEngine]:
    """Load and run every graph once, and write down that they do."""
    from edge_ad.runtime.backends import load_session

    folder = _vacant(bundle.path / "engines" / engine_key("onnxruntime", precision, ()), force)
    built, plans = [], {}
    with new_folder(folder, replace=force) as out:
        for graph in bundle.manifest.graphs:
            say(f"checking {graph}.onnx with onnxruntime")
            start = time.perf_counter()
            session = load_session(bundle, graph, "onnxruntime", precision)
            low, _, high = _rows(bundle, graph)
            results = session.run(_probe(session.inputs, max(low, min(4, high))))
            for name, values in results.items():
                if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                    raise EdgeAdError(
                        f"{bundle.where}: graph {graph}: output '{name}' of random input is not finite",
                        "finite values",
                        "run edge-ad export again",
                    )
            seconds = round(time.perf_counter() - start, 3)
            path = bundle.graph_path(graph, precision)
            digest = bundle.manifest.files[bundle.graph_file(graph, precision)]
            size = path.stat().st_size
            plans[graph] = PlanRecord("", session.inputs, session.outputs, digest, digest, size, seconds, {})
            built.append(BuiltEngine(graph, path, size, seconds))
        version = metadata.version("onnxruntime")
        write_json(out / SIDECAR, _sidecar("onnxruntime", version, precision, (), plans).to_dict())
    return built
