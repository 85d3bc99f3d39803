"""The options of a ``realsense:`` URI."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edge_ad.errors import EdgeAdError
from edge_ad.sensors.realsense_frames import FILTERS
from edge_ad.sensors.realsense_modes import read_size
from edge_ad.sensors.realsense_sdk import check_file
from edge_ad.sensors.realsense_settings import Settings, read_settings
from edge_ad.sensors.uri import Uri

RECORDINGS = (".bag", ".db3")
SIMULATED = "simulated"
_LIVE = ("size", "depth", "preset", "emitter", "laser", "units", "exposure", "colour_exposure", "settle", "record")
_SIMULATED = ("feed", "baseline", "record", "settle", "exposure")
_PLAYED = ("realtime", "loop")
_ALL = ("fps", "class", "align", "skew", "filters", "timeout")


@dataclass(frozen=True)
class Options:
    """What a URI asks for. ``kind``: ``"live"``, ``"file"`` or ``"simulated"``. ``skew_s`` None: one frame period."""

    kind: str
    target: str
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    fps: int
    class_name: str | None
    align: bool
    skew_s: float | None
    filters: tuple[str, ...]
    timeout_s: float
    realtime: bool
    loop: bool
    record: Path | None
    feed: str
    baseline_m: float
    settings: Settings


def read_options(uri: Uri) -> Options:
    """Options from a URI; a recording is looked at, a camera not yet. Raises EdgeAdError."""
    path = Path(uri.path)
    kind = "live"
    if uri.path == SIMULATED:
        kind = "simulated"
    elif path.suffix.lower() in RECORDINGS or os.sep in uri.path:
        kind = "file"
    uri.only(*_ALL, *{"live": _LIVE, "file": _PLAYED, "simulated": _SIMULATED}[kind])
    fps = uri.integer("fps", 30, 1)
    filters = tuple(name for name in (uri.text("filters") or "").split("+") if name)
    if set(filters) - set(FILTERS):
        raise EdgeAdError(f"{uri}: filters={'+'.join(filters)}", f"some of {'+'.join(FILTERS)}, or none")
    if (uri.text("align") or "colour") not in ("colour", "raw"):
        raise EdgeAdError(f"{uri}: align={uri.text('align')}", "colour or raw")
    record = uri.text("record")
    if record and Path(record).suffix != ".db3":
        raise EdgeAdError(f"{uri}: record={record}", "a name that ends with .db3")
    colour_size = read_size(uri, "size", (640, 480))
    if kind == "file":
        check_file(path)
    return Options(
        kind=kind,
        target=uri.path,
        colour_size=colour_size,
        depth_size=read_size(uri, "depth", colour_size),
        fps=fps,
        class_name=uri.text("class"),
        align=uri.text("align") != "raw",
        skew_s=None if uri.text("skew") is None else uri.number("skew", 0, 0, 60000) / 1e3,
        filters=filters,
        timeout_s=uri.number("timeout", 5 if kind == "live" else 60, 0.1, 600),  # a file does not hang, a busy box may
        realtime=uri.switch("realtime"),
        loop=uri.switch("loop"),
        record=Path(record) if record else None,
        feed=uri.text("feed") or "synthetic:",
        baseline_m=uri.number("baseline", 15, 0, 200) / 1e3,
        settings=read_settings(uri),
    )
