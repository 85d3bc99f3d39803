"""What an engine is built for: devices, and the sizes of the graphs' free dimensions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_ad.bundle import Bundle
from edge_ad.engines import trt
from edge_ad.errors import EdgeAdError
from edge_ad.runtime import cuda

DEFAULT_CAPABILITY = (8, 6)
DEFAULT_ROWS = (1, 4096, 65536)


def parse_capability(text: str) -> tuple[int, int]:
    """``"8.6"``, ``"86"`` or ``"SM86"`` -> (8, 6)."""
    match = re.fullmatch(r"(?:sm)?(\d{1,2}?)\.?(\d)", text.strip().lower())
    if not match:
        raise EdgeAdError(f"compute capability '{text}'", "a number like 8.6")
    return int(match[1]), int(match[2])


def choose_targets(
    backend: str, asked: Sequence[str], say: Callable[[str], None]
) -> tuple[list[tuple[int, int] | str], cuda.Device | None]:
    """What to build for, and the device here if there is one."""
    if backend == "tensorrt":
        device = cuda.require_device("TensorRT engines are built and run on")
        if asked and [parse_capability(a) for a in asked] != [device.compute_capability]:
            here = "{}.{}".format(*device.compute_capability)
            raise EdgeAdError(
                f"compute capability {', '.join(asked)} asked for",
                f"{here}, this device's ({device.name})",
                "build on the board that runs the engine, or use --backend tensorrt-rtx",
            )
        return [device.compute_capability], device
    found = cuda.find_device()
    if any(a.strip().lower() == trt.PORTABLE for a in asked):
        if len(asked) > 1:
            raise EdgeAdError(f"compute capability {', '.join(asked)}", "'portable' alone, or numbers")
        return [trt.PORTABLE], found
    if asked:
        targets: list[tuple[int, int] | str] = []
        targets += sorted({parse_capability(a) for a in asked})
        return targets, found
    if found is not None:
        return [found.compute_capability], found
    say("no GPU here: building for compute capability 8.6 (name another with --compute-capability)")
    return [DEFAULT_CAPABILITY], None


def runs_here(marks: Sequence[str], device: cuda.Device) -> bool:
    """Whether an engine for these targets runs on this device."""
    return "portable" in marks or "{}.{}".format(*device.compute_capability) in marks


def rows_of(bundle: Bundle, graph: str) -> tuple[int, int, int]:
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


def check_batch(bundle: Bundle, batch: int) -> None:
    """Refuse a batch that the graphs cannot take."""
    free = {d for g in bundle.manifest.graphs.values() for t in g.inputs for d in t.shape if isinstance(d, str)}
    if batch < 1 or (batch > 1 and trt.BATCH not in free):
        raise EdgeAdError(
            f"a batch of {batch}", f"1: the graphs of {bundle.where} take one part a run" if batch > 1 else "at least 1"
        )


def default_timing_cache(version: str, capabilities: Sequence[tuple[int, int] | str]) -> Path:
    """``~/.cache/edge-ad/timing/tensorrt-10.13.3.9-sm87.cache`` (or under ``XDG_CACHE_HOME``)."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    marks = "-".join(c if isinstance(c, str) else f"sm{c[0]}{c[1]}" for c in capabilities)
    return root / "edge-ad" / "timing" / f"tensorrt-{version}-{marks}.cache"
