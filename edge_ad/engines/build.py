"""Building the engines of a bundle: every graph of one precision for one backend, as one folder or none."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata, util
from pathlib import Path

from edge_ad import __version__
from edge_ad.bundle import Bundle
from edge_ad.engines import trt
from edge_ad.engines.identity import SIDECAR, PlanRecord, Sidecar, engine_key, read_sidecar
from edge_ad.engines.kernels import add_kernels
from edge_ad.engines.known_faults import known_faults
from edge_ad.engines.packing import pack
from edge_ad.engines.targets import check_batch, choose_targets, default_timing_cache, rows_of, runs_here
from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder, sha256, write_bytes, write_json
from edge_ad.runtime import cuda

BACKENDS = ("onnxruntime", "tensorrt-rtx", "tensorrt")
MOST_WORKSPACE_MB = 2**20
"""More than any device has; TensorRT counts bytes in 64 bits."""


@dataclass(frozen=True)
class BuiltEngine:
    """One graph that was built: its plan (or ONNX file), bytes of that file, seconds taken. ``kept``: from before."""

    graph: str
    path: Path
    bytes: int
    seconds: float
    kept: bool = False


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def build_engines(
    bundle: Bundle,
    backend: str,
    precision: str = "fp32",
    *,
    compute_capability: Sequence[str] = (),
    workspace_mb: int | None = None,
    batch: int = 1,
    weight_streaming: bool = False,
    timing_cache: Path | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[BuiltEngine]:
    """Build the graphs of a bundle into ``engines/<key>/`` with a sidecar, as one folder or none.

    Where that engine exists, the plans of graphs that did not change since are kept and only the others are built
    (:attr:`BuiltEngine.kept`). On the device that will run it, the golden gate decides at once whether it may stay.

    Parameters
    ----------
    bundle : an opened, verified bundle.
    backend : ``onnxruntime`` (nothing to build: the graphs are run once on random input), ``tensorrt-rtx`` (needs no
        GPU) or ``tensorrt`` (needs the GPU that will run the engines).
    precision : a precision whose graphs the bundle holds.
    compute_capability : targets of TensorRT-RTX ("8.6", ...), or ``("portable",)`` for its own list (8.0 and newer);
        empty: the GPU here, else 8.6.
    workspace_mb : cap on scratch memory, MiB; by default 1024 for ``tensorrt``, TensorRT-RTX's own otherwise.
    batch : most parts a run, for graphs with a free dimension ``batch``.
    weight_streaming : let the plans keep weights in host memory where the device's does not suffice.
    timing_cache : file for ``tensorrt``'s kernel timings; by default one a version and device in the user's cache.
    force : build everything again.
    progress : called with a line for people.

    Raises
    ------
    EdgeAdError
        An unknown backend, a precision that the bundle lacks, a missing package or device, an engine that is complete
        already, whatever TensorRT said against a graph, or an engine that the golden frames refuse.
    """
    say = progress or (lambda _: None)
    if backend not in BACKENDS:
        raise EdgeAdError(f"unknown backend '{backend}'", f"one of {', '.join(BACKENDS)}")
    if not bundle.manifest.graphs:
        raise EdgeAdError(f"{bundle.where} holds no graphs", "", "run edge-ad export again")
    if workspace_mb is not None and not 1 <= workspace_mb <= MOST_WORKSPACE_MB:
        raise EdgeAdError(f"workspace of {workspace_mb} MB", f"1 to {MOST_WORKSPACE_MB} MB")
    for graph in bundle.manifest.graphs:
        bundle.graph_file(graph, precision)
        rows_of(bundle, graph)
    check_batch(bundle, batch)
    if backend == "onnxruntime":
        if compute_capability:
            raise EdgeAdError("--compute-capability with onnxruntime", "it for tensorrt-rtx only")
        return _check_onnxruntime(bundle, precision, force, say)
    module = trt.load_module(backend)
    version = trt.version(module)
    capabilities, device = choose_targets(backend, compute_capability, say)
    if backend == "tensorrt":
        workspace_mb = workspace_mb or 1024
        timing_cache = timing_cache or default_timing_cache(version, capabilities)
    for fault in known_faults(backend, version, device.compute_capability if device else None):
        say(f"warning: {fault}; the golden frames decide whether its engine is served")
    _preflight(bundle, precision, workspace_mb or 0, say)
    marks = tuple(c if isinstance(c, str) else f"{c[0]}.{c[1]}" for c in capabilities)
    options = trt.BuildOptions(
        batch=(1, 1, batch),
        workspace_mb=workspace_mb,
        capabilities=tuple(c for c in capabilities if not isinstance(c, str)),
        timing_cache=timing_cache,
        weight_streaming=weight_streaming,
    )
    key = engine_key(backend, precision, marks, bundle.variant)
    draft = replace(
        _sidecar(backend, version, precision, marks, {}),
        workspace_mb=workspace_mb,
        device=device.name if device else "",
        variant=bundle.variant,
    )
    folder = bundle.path / "engines" / key
    kept = {} if force else kept_plans(folder, bundle, draft, options)
    if len(kept) == len(bundle.manifest.graphs):
        raise EdgeAdError(f"engine {folder} was built before", "", "pass --force to build it again")
    built: list[BuiltEngine] = []
    plans: dict[str, PlanRecord] = {}
    flags: tuple[str, ...] = ()
    with new_folder(folder, replace=True, marker=SIDECAR) as out:
        for graph in bundle.manifest.graphs:
            if graph in kept:
                record, old_flags = kept[graph]
                say(f"{graph} did not change: its plan is kept")
                write_bytes(out / record.file, (folder / record.file).read_bytes())
                flags, plans[graph] = flags or old_flags, record
                built.append(BuiltEngine(graph, folder / record.file, record.bytes, 0.0, kept=True))
                continue
            start = time.perf_counter()
            here = replace(options, rows=rows_of(bundle, graph))
            plan = trt.build_plan(backend, bundle.graph_path(graph, precision), here, progress=say)
            seconds = round(time.perf_counter() - start, 3)
            name, data = pack(f"{graph}.plan", plan.data)
            write_bytes(out / name, data)
            plans[graph] = PlanRecord(
                file=name,
                inputs=plan.inputs,
                outputs=plan.outputs,
                source_sha256=bundle.manifest.files[bundle.graph_file(graph, precision)],
                sha256=hashlib.sha256(data).hexdigest(),
                bytes=len(data),
                seconds=seconds,
                profile=plan.profile,
            )
            flags = plan.flags
            built.append(BuiltEngine(graph, folder / name, len(data), seconds))
        add_kernels(out, options.capabilities, say)
        write_json(out / SIDECAR, replace(draft, plans=plans, flags=flags).to_dict())
    if device is not None and runs_here(marks, device):
        _gate(bundle, backend, precision, folder, say)
    elif device is None:
        say("no GPU here: the golden frames are run when the engine is first loaded on its device")
    return built


def kept_plans(
    folder: Path, bundle: Bundle, draft: Sidecar, options: trt.BuildOptions
) -> dict[str, tuple[PlanRecord, tuple[str, ...]]]:
    """Plans of an engine that need no new build: same version, target, options and source, and an intact file.

    Returns
    -------
    graph -> (its record, the flags of the engine it stands in); empty where there is no such engine.
    """
    if not (folder / SIDECAR).is_file():
        return {}
    try:
        old = read_sidecar(folder)
    except EdgeAdError:
        return {}
    streaming = "WEIGHT_STREAMING" in old.flags
    same = (old.backend, old.version, old.precision, old.capabilities, old.workspace_mb, streaming) == (
        draft.backend,
        draft.version,
        draft.precision,
        draft.capabilities,
        draft.workspace_mb,
        options.weight_streaming,
    )
    out: dict[str, tuple[PlanRecord, tuple[str, ...]]] = {}
    for graph, record in old.plans.items():
        if not same or graph not in bundle.manifest.graphs:
            continue
        source = bundle.manifest.files[bundle.graph_file(graph, draft.precision)]
        path = folder / record.file
        if record.file and record.source_sha256 == source and path.is_file() and sha256(path) == record.sha256:
            out[graph] = (record, old.flags)
    return out


def _gate(bundle: Bundle, backend: str, precision: str, folder: Path, say: Callable[[str], None]) -> None:
    """Run the golden frames through a new engine; one that they refuse is taken away again."""
    from edge_ad.engines.gate import ensure
    from edge_ad.runtime.detector import Detector

    if util.find_spec("pycuda") is None:
        say("pycuda is missing: the golden frames are run when the engine is first loaded")
        return
    try:
        ensure(Detector(bundle, backend, precision, need_threshold=False), backend, say=say)
    except EdgeAdError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _sidecar(
    backend: str,
    version: str,
    precision: str,
    marks: tuple[str, ...],
    plans: dict[str, PlanRecord],
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


def _preflight(bundle: Bundle, precision: str, workspace_mb: int, say: Callable[[str], None]) -> None:
    """Warn when the memory that is free cannot hold the largest build (weights in the network and in the plan)."""
    available = cuda.available_bytes() >> 20
    sizes = {g: os.path.getsize(bundle.graph_path(g, precision)) >> 20 for g in bundle.manifest.graphs}
    graph = max(sizes, key=lambda g: sizes[g])
    need = 2 * sizes[graph] + workspace_mb
    if available and need > available:
        say(
            f"warning: building {graph} needs at least {need} MB (its weights twice and the workspace), {available} MB "
            "are free; close other programs or lower --workspace-mb"
        )


def _check_onnxruntime(bundle: Bundle, precision: str, force: bool, say: Callable[[str], None]) -> list[BuiltEngine]:
    """Load and run every graph once, and write down that they do."""
    from edge_ad.engines.dry_run import dry_run
    from edge_ad.engines.gate import check_reference

    folder = bundle.path / "engines" / engine_key("onnxruntime", precision, (), bundle.variant)
    if folder.exists() and not force:
        raise EdgeAdError(f"engine {folder} was built before", "", "pass --force to build it again")
    built, plans, sessions = [], {}, {}
    with new_folder(folder, replace=force) as out:
        for graph in bundle.manifest.graphs:
            say(f"checking {graph}.onnx with onnxruntime")
            start = time.perf_counter()
            sessions[graph] = session = dry_run(bundle, graph, "onnxruntime", precision)
            seconds = round(time.perf_counter() - start, 3)
            path = bundle.graph_path(graph, precision)
            digest = bundle.manifest.files[bundle.graph_file(graph, precision)]
            size = path.stat().st_size
            plans[graph] = PlanRecord("", session.inputs, session.outputs, digest, digest, size, seconds, {})
            built.append(BuiltEngine(graph, path, size, seconds))
        if precision == "fp32":
            say("golden frames: holding the float32 graphs against the bundle's answers")
            check_reference(bundle, sessions)
        version = metadata.version("onnxruntime")
        sidecar = replace(_sidecar("onnxruntime", version, precision, (), plans), variant=bundle.variant)
        write_json(out / SIDECAR, sidecar.to_dict())
    return built
