"""Passes of the golden gate: remembered beside the engines, bound to all that they depend on."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_ad import __version__
from edge_ad.bundle import Bundle
from edge_ad.engines.identity import SIDECAR, engine_key
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256, write_json
from edge_ad.runtime import cuda
from edge_ad.system import CPUINFO, told_by

logger = logging.getLogger(__name__)
KEPT = 16
"""Passes remembered an engine: one a device, driver and set of limits."""


def record_path(bundle: Bundle, backend: str, precision: str) -> Path:
    """Where passes are remembered: beside the engines."""
    return bundle.path / "engines" / f"{engine_key(backend, precision, (), bundle.variant)}.gate.json"


def fingerprint(bundle: Bundle, backend: str, precision: str, way: str = "Detector", limits: bool = True) -> str:
    """Names all that a pass depends on: the bundle's files and limits, the engines, the device, the versions.

    way : the detector's class: graph after graph, or the device pipeline. limits : whether the limits have a say.
    """
    digest = hashlib.sha256()
    parts: list[object] = [__version__, way, backend, precision, bundle.variant, sorted(bundle.manifest.files.items())]
    parts.append(_limits(bundle, precision) if limits else None)
    if backend.startswith("tensorrt"):
        device = cuda.find_device()
        parts += [device, cuda.driver_version()]
        folders = sorted((bundle.path / "engines").glob(f"{backend}-{precision}*/{SIDECAR}"))
        parts += [(p.parent.name, sha256(p)) for p in folders]
    else:
        parts += [metadata.version(backend), platform.machine(), _processor()]
    for part in parts:
        digest.update(repr(part).encode() + b"\0")
    return digest.hexdigest()


def _limits(bundle: Bundle, precision: str) -> list[str]:
    """The limits that decide about the golden frames: the reference's and this precision's own."""
    return [repr((c, bundle.threshold(c, "fp32"), bundle.threshold(c, precision))) for c in bundle.class_names]


def _processor() -> list[str]:
    told = ("model name", "flags", "Features", "CPU part")
    return sorted({line for line in told_by(CPUINFO).splitlines() if line.startswith(told)}) or [platform.processor()]


def remembered(path: Path) -> list[str]:
    """Fingerprints that passed; empty where the file is absent or damaged (the gate is then asked again)."""
    try:
        return [str(p["fingerprint"]) for p in read_json(path)["passes"]]
    except (EdgeAdError, OSError, KeyError, TypeError):
        return []


def remember(path: Path, mark: str, report: Mapping[str, Any], level: int = logging.WARNING) -> None:
    """Write a pass down; on a read-only bundle it is asked again next time, which is told at this logging level."""
    try:
        passes = read_json(path)["passes"] if path.is_file() else []
        passes = [p for p in passes if p["fingerprint"] != mark][-(KEPT - 1) :]
    except (EdgeAdError, OSError, KeyError, TypeError):
        passes = []
    try:
        write_json(path, {"passes": [*passes, {"fingerprint": mark, "report": dict(report)}]})
    except EdgeAdError as e:
        logger.log(level, "the golden frames' verdict was not kept: %s", e)
