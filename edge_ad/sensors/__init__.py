"""Cameras: objects that give frames, opened by a URI. A camera is a context manager and an iterable."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Protocol, TypeVar, cast

from edge_ad.frame import Frame
from edge_ad.sensors.uri import parse_uri

SCHEMES: dict[str, str] = {
    "folder": "edge_ad.sensors.folder",
    "synthetic": "edge_ad.sensors.synthetic",
    "belt": "edge_ad.sensors.belt",
    "realsense": "edge_ad.sensors.realsense",
    "rosbag": "edge_ad.sensors.rosbag",
    "mcap": "edge_ad.sensors.mcap",
    "opencv": "edge_ad.sensors.opencv_device",
    "orbbec": "edge_ad.sensors.orbbec",
    "oak": "edge_ad.sensors.oak",
    "fault": "edge_ad.sensors.capture.fault",
}
"""Scheme -> module with ``open_uri(uri: Uri) -> Camera``. Only the module of the scheme asked for is imported."""

_T = TypeVar("_T")
_C = TypeVar("_C")


@dataclass(frozen=True)
class BrokenFrame:
    """Stands in a camera's stream for a frame that could not be read; ``error`` is the one line that says why."""

    name: str
    sequence: int
    source: str
    error: str


class Camera(Protocol):
    """What :func:`open_camera` gives. Use it in a ``with`` block; iterate it once in there."""

    def __enter__(self) -> Camera:
        """Start the camera."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it; safe to call after a failure."""

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """Frames with ``sequence`` counting from 0; a frame that cannot be read is a :class:`BrokenFrame`."""

    def describe(self) -> str:
        """One line for people."""


class AlwaysOpen:
    """Base of a source with nothing to start and nothing to stop: files are open only while they are read."""

    def __enter__(self: _C) -> _C:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""


def open_camera(uri: str) -> Camera:
    """Open a camera by its URI, e.g. ``folder:DIR?split=test``, ``realsense:``, ``mcap:FILE`` (docs/cameras.md).

    Raises EdgeAdError for an unknown scheme or option, and whatever the camera finds amiss when it is opened.
    """
    parsed = parse_uri(uri, tuple(SCHEMES))
    return cast(Camera, import_module(SCHEMES[parsed.scheme]).open_uri(parsed))


def paced(items: Iterable[_T], fps: float) -> Iterator[_T]:
    """``items`` at most ``fps`` a second (0: as fast as they are taken); a slow taker is never sent a burst."""
    due = time.monotonic()
    for item in items:
        if fps > 0:
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            # Late by a whole period: start a new schedule rather than catch up.
            now = time.monotonic()
            due = (due if now < due + 1 / fps else now) + 1 / fps
        yield item
