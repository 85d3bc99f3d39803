"""Capture that survives: a live camera in its own process, watched, and helped up a ladder of remedies.

A camera may offer two things more than :class:`edge_ad.sensors.Camera` asks for: ``hardware_reset()`` resets the device
and returns when it can be opened again (it may be called from another thread while the stream hangs), and
``temperature_c()`` gives degrees Celsius or None.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_ad.sensors import SCHEMES, Camera, open_camera
from edge_ad.sensors.capture.camera import WatchedCamera
from edge_ad.sensors.capture.health import CameraHealth
from edge_ad.sensors.capture.watchdog import WatchOptions
from edge_ad.sensors.uri import parse_uri

__all__ = ["CameraHealth", "WatchOptions", "WatchedCamera", "is_live", "open_source"]

LIVE = ("realsense", "opencv", "orbbec", "oak", "fault")
NOT_LIVE = {"realsense": (".bag", ".db3", "simulated"), "opencv": (".mp4", ".avi", ".mkv", ".mov", ".png", ".jpg")}
"""Ends of a path by which a scheme reads a file, or makes its frames itself."""


def is_live(uri: str) -> bool:
    """Whether ``uri`` is a camera that goes on by itself; a recording waits for its reader and needs no watchdog.

    Raises EdgeAdError for an unknown scheme.
    """
    parsed = parse_uri(uri, tuple(SCHEMES))
    return parsed.scheme in LIVE and not parsed.path.lower().endswith(NOT_LIVE.get(parsed.scheme, ("?",)))


def open_source(
    uri: str,
    options: WatchOptions | None = None,
    *,
    watch: bool = True,
    say: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Camera:
    """A live camera in its own process under the watchdog, a recording as it is; ``watch=False``: every source as it
    is.

    Raises EdgeAdError for an unknown scheme or option; a live camera that is not there is told when it is entered.
    """
    if not (watch and is_live(uri)):
        return open_camera(uri)
    return WatchedCamera(uri, options, say=say, stop=stop)
