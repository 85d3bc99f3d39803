"""What an engine is: a sidecar beside its plans, checked in words before TensorRT sees a byte.

TensorRT's own refusals ("Version tag does not match", "expecting compute 8.6 got 8.7") name neither the file nor the
way out; and deserialising a plan runs code of its making, so a plan whose hash is not its sidecar's is never
handed over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.bundle.manifest import safe_relative
from edge_ad.bundle.variants import BASE
from edge_ad.engines.packing import unpack
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256

logger = logging.getLogger(__name__)
SIDECAR = "sidecar.json"
SIDECAR_SCHEMA = 1
AGAIN = "build the engine again with --force"


@dataclass(frozen=True)
class PlanRecord:
    """One graph of an engine.

    file : plan beside the sidecar, packed where it ends in ``.xz``, or ``""`` where the backend runs the ONNX file
    itself.
    source_sha256, sha256 : hash of the ONNX file it was built from, and of the plan's file. bytes : of that file.
    profile : input -> (least, usual, greatest) shape, for graphs with a free dimension.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source_sha256: str
    sha256: str
    bytes: int
    seconds: float
    profile: Mapping[str, Any]


@dataclass(frozen=True)
class Sidecar:
    """One built engine: all graphs of a bundle for one backend, precision and kind of device.

    capabilities : compute capabilities ("8.6") it was built for; ``("portable",)``; or empty for a CPU backend.
    version : version of the backend that built it. device : name of the GPU it was built on, if one was there.
    variant : of the bundle's model.
    """

    backend: str
    version: str
    precision: str
    capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    workspace_mb: int | None
    built_on: str
    created_by: str
    created_at: str
    plans: Mapping[str, PlanRecord]
    schema: int = SIDECAR_SCHEMA
    device: str = ""
    variant: str = BASE

    @property
    def key(self) -> str:
        """Name of its folder under ``engines/``."""
        return engine_key(self.backend, self.precision, self.capabilities, self.variant)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def engine_key(backend: str, precision: str, capabilities: Sequence[str], variant: str = BASE) -> str:
    """``tensorrt-rtx-fp32-sm86``, ``tensorrt-rtx-fp32-portable``, ``onnxruntime-fp32``, ``tensorrt-fp16-sm87+tiny``."""
    marks = [c if c == "portable" else f"sm{c.replace('.', '')}" for c in capabilities]
    return "-".join([backend, precision, *marks]) + ("" if variant == BASE else f"+{variant}")


def build_command(backend: str, precision: str, bundle: Bundle, *, force: bool = False) -> str:
    """The command that makes (or mends) an engine."""
    end = "" if bundle.variant == BASE else f" --variant {bundle.variant}"
    end += " --force" if force else ""
    return f"run: edge-ad build-engine {bundle.path} --backend {backend} --precision {precision}{end}"


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(str(t["name"]), tuple(t["shape"]), str(t["dtype"])) for t in values)


def read_sidecar(folder: Path) -> Sidecar:
    """Read ``folder/sidecar.json``.

    Raises
    ------
    EdgeAdError
        Absent, not JSON, from a newer program, a field missing, or a plan outside its folder.
    """
    path = folder / SIDECAR
    try:
        values = read_json(path)
    except EdgeAdError as e:
        raise EdgeAdError(e.found, "a sidecar that edge-ad build-engine wrote", AGAIN) from None
    try:
        if values["schema"] > SIDECAR_SCHEMA:
            raise EdgeAdError(f"{path}: schema {values['schema']}", f"at most {SIDECAR_SCHEMA}", "update edge-ad here")
        plans = {
            name: PlanRecord(
                file=safe_relative(p["file"], str(path)) if p["file"] else "",
                inputs=_specs(p["inputs"]),
                outputs=_specs(p["outputs"]),
                source_sha256=str(p["source_sha256"]),
                sha256=str(p["sha256"]),
                bytes=int(p["bytes"]),
                seconds=float(p["seconds"]),
                profile=dict(p["profile"]),
            )
            for name, p in values["plans"].items()
        }
        values.setdefault("device", "")  # sidecars of edge-ad 0.1
        values.setdefault("variant", BASE)
        rest = {f.name: values[f.name] for f in dataclasses.fields(Sidecar) if f.name != "plans"}
        rest.update(capabilities=tuple(rest["capabilities"]), flags=tuple(rest["flags"]))
        return Sidecar(plans=plans, **rest)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise EdgeAdError(
            f"{path} is damaged ({e!r})",
            "a sidecar that edge-ad build-engine wrote",
            AGAIN,
        ) from None


def find_engine(
    bundle: Bundle,
    backend: str,
    precision: str,
    capability: tuple[int, int] | None,
    version: str | None = None,
) -> tuple[Path, Sidecar]:
    """The folder and sidecar of the engine for this backend, precision and device.

    One that names the device's compute capability is preferred to a portable one. One that :func:`check` would refuse
    (``version`` given) is passed over for the next that it would not, and logged with the reason; where it would
    refuse all, the best of them is returned, so that :func:`check` says what is wrong with it. Damage (a plan that is
    not the one its sidecar names) is never passed over.

    Raises
    ------
    EdgeAdError
        None was built: what exists, and the command that builds it.
    """
    root = bundle.path / "engines"
    built = sorted(p for p in root.glob("[!.]*") if p.is_dir()) if root.is_dir() else []
    found = [(p, read_sidecar(p)) for p in built if p.name.startswith(f"{backend}-{precision}")]
    found = [(p, s) for p, s in found if (s.backend, s.precision, s.variant) == (backend, precision, bundle.variant)]
    if not found:
        names = ", ".join(p.name for p in built) or "none"
        raise EdgeAdError(
            f"{bundle.where} has no {backend} engine in {precision} (engines: {names})",
            "",
            build_command(backend, precision, bundle),
        )
    wanted = "" if capability is None else f"{capability[0]}.{capability[1]}"

    def distance(entry: tuple[Path, Sidecar]) -> int:
        return 0 if wanted in entry[1].capabilities else 1 if "portable" in entry[1].capabilities else 2

    found.sort(key=distance)
    if version is None:
        return found[0]
    reasons = [_refusal(folder, sidecar, bundle, version, capability) for folder, sidecar in found]
    chosen = next((i for i, reason in enumerate(reasons) if not reason), 0)
    for i, reason in enumerate(reasons):
        if reason and i != chosen:
            # An engine of another device is no fault; a better one that is out of date is.
            logger.log(logging.WARNING if i < chosen else logging.INFO, "passed over: %s", reason)
    return found[chosen]


def _refusal(folder: Path, sidecar: Sidecar, bundle: Bundle, version: str, capability: tuple[int, int] | None) -> str:
    """Why :func:`check` refuses an engine's identity; empty when it does not. Plans are not read."""
    try:
        check(folder, sidecar, bundle, version=version, capability=capability, graphs=())
    except EdgeAdError as e:
        return str(e)
    return ""


def read_plan(folder: Path, sidecar: Sidecar, bundle: Bundle, graph: str) -> bytes:
    """The bytes of a plan, its file hashed as it was read: what is unpacked and deserialised is what was checked.

    Raises
    ------
    EdgeAdError
        The plan is missing, cut off, or not the one that its sidecar names.
    """
    where = f"engine {folder.name} of {bundle.where}"
    remedy = build_command(sidecar.backend, sidecar.precision, bundle, force=True)
    record = sidecar.plans[graph]
    path = folder / record.file
    if not record.file or not path.is_file():
        raise EdgeAdError(f"{where}: {record.file or graph} is missing", "every plan of the sidecar", remedy)
    data = path.read_bytes()
    if len(data) != record.bytes:
        raise EdgeAdError(f"{where}: {record.file} has {len(data)} bytes", f"{record.bytes}, as its sidecar", remedy)
    found = hashlib.sha256(data).hexdigest()
    if found != record.sha256:
        raise EdgeAdError(
            f"{where}: {record.file} has SHA-256 {found[:12]}...", f"{record.sha256[:12]}..., its sidecar's", remedy
        )
    return unpack(record.file, data)


def check(
    folder: Path,
    sidecar: Sidecar,
    bundle: Bundle,
    *,
    version: str,
    capability: tuple[int, int] | None,
    graphs: Sequence[str] | None = None,
) -> None:
    """Refuse an engine that is damaged or belongs to another bundle, backend version or device.

    Parameters
    ----------
    folder : where the sidecar and its plans lie.
    version : version of the backend that is installed here.
    capability : compute capability of the device here; None for a backend without one.
    graphs : the graphs whose plans are hashed; None: all.

    Raises
    ------
    EdgeAdError
        Found, expected, and the command that mends it.
    """
    where = f"engine {folder.name} of {bundle.where}"
    remedy = build_command(sidecar.backend, sidecar.precision, bundle, force=True)
    missing = sorted(set(bundle.manifest.graphs) - set(sidecar.plans))
    if missing:
        raise EdgeAdError(f"{where} lacks the graph {', '.join(missing)}", "every graph of the bundle", remedy)
    if sidecar.version != version:
        raise EdgeAdError(
            f"{where} was built by {sidecar.backend} {sidecar.version}", f"{version}, installed here", remedy
        )
    if capability is not None and "portable" not in sidecar.capabilities:
        here = f"{capability[0]}.{capability[1]}"
        if here not in sidecar.capabilities:
            built = ", ".join(sidecar.capabilities) or "no device"
            raise EdgeAdError(f"{where} was built for compute capability {built}", f"{here}, this device's", remedy)
    for graph, plan in sidecar.plans.items():
        source = bundle.manifest.files[bundle.graph_file(graph, sidecar.precision)]
        if plan.source_sha256 != source:
            raise EdgeAdError(
                f"{where}: {graph} was built from a graph with SHA-256 {plan.source_sha256[:12]}...",
                f"{source[:12]}..., the bundle's",
                remedy,
            )
        if plan.file and (graphs is None or graph in graphs):
            path = folder / plan.file
            if not path.is_file():
                raise EdgeAdError(f"{where}: {plan.file} is missing", "every plan of the sidecar", remedy)
            found = sha256(path)
            if found != plan.sha256:
                raise EdgeAdError(
                    f"{where}: {plan.file} has SHA-256 {found[:12]}...", f"{plan.sha256[:12]}..., its sidecar's", remedy
                )
