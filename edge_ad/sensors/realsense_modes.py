"""Modes of a RealSense camera: what was asked for, held against what it has, before anything starts."""

from __future__ import annotations

import re
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.sensors.uri import Uri


def read_size(uri: Uri, key: str, default: tuple[int, int]) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` from a URI's option. Raises EdgeAdError."""
    text = uri.text(key)
    if text is None:
        return default
    found = re.fullmatch(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", text)
    if found is None:
        raise EdgeAdError(f"{uri}: {key}={text}", "WIDTHxHEIGHT, e.g. 1280x720")
    return int(found[1]), int(found[2])


def modes(rs: Any, device: Any, stream: Any, form: Any) -> set[tuple[int, int, int]]:
    """(width, height, fps) of every mode of a stream in a format."""
    found = set()
    for sensor in device.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() == stream and profile.format() == form and profile.is_video_stream_profile():
                video = profile.as_video_stream_profile()
                found.add((int(video.width()), int(video.height()), int(profile.fps())))
    return found


def check_mode(
    rs: Any,
    device: Any,
    info: dict[str, Any],
    colour: tuple[int, int],
    depth: tuple[int, int],
    fps: int,
) -> None:
    """Raise EdgeAdError naming the modes there are unless the camera has both that were asked for."""
    for what, size, stream, form in (
        ("colour", colour, rs.stream.color, rs.format.rgb8),
        ("depth", depth, rs.stream.depth, rs.format.z16),
    ):
        there = modes(rs, device, stream, form)
        if (*size, fps) in there:
            continue
        if not there:
            raise EdgeAdError(
                f"{info.get('name', 'this camera')} has no {what} stream", "a camera with colour and depth"
            )
        slow = info.get("usb", "").startswith("2")
        remedy = "it hangs on a USB 2 port: use USB 3" if slow else "name size=, depth= and fps= of a mode it has"
        told = ", ".join(f"{w}x{h}@{'/'.join(map(str, rates))}" for (w, h), rates in _by_size(there))
        raise EdgeAdError(f"no {what} of {size[0]}x{size[1]} at {fps} frames a second", f"one of {told}", remedy)


def _by_size(found: set[tuple[int, int, int]]) -> list[tuple[tuple[int, int], list[int]]]:
    sizes = sorted({(w, h) for w, h, _ in found})
    return [((w, h), sorted({f for a, b, f in found if (a, b) == (w, h)})) for w, h in sizes]
