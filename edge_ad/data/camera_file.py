"""``camera.json``: the intrinsics, depth scale and alignment of a recording (METHOD section 10)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from edge_ad.data.images import read_bytes
from edge_ad.errors import InvalidFrame
from edge_ad.frame import U8, Intrinsics

MAX_DEPTH_SCALE_M = 0.1
_ALIGNED = ("color", "colour", "rgb")


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises InvalidFrame."""
    try:
        value = json.loads(read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as e:
        raise InvalidFrame(f"{path} is not JSON ({e})", "a JSON object") from None
    if not isinstance(value, dict):
        raise InvalidFrame(f"{path} holds a JSON {type(value).__name__}", "a JSON object")
    return value


def finite_number(value: object) -> float | None:
    """``value`` as a float when it is a finite JSON number (booleans are none), else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def read_intrinsics(path: Path, data: dict[str, Any] | None = None) -> Intrinsics:
    """Intrinsics from a ``camera.json``: width, height, fx, fy, ppx, ppy (pixels), optional distortion.

    Raises InvalidFrame that names the file and every field that is missing or wrong.
    """
    data = read_json_object(path) if data is None else data
    wrong = []
    number: dict[str, float] = {}
    for key in ("width", "height", "fx", "fy", "ppx", "ppy"):
        value = finite_number(data.get(key))
        if value is None:
            wrong.append(f"{key} = {json.dumps(data[key])}" if key in data else f"no {key}")
        elif (key in ("width", "height") and (value < 1 or value != int(value))) or (
            key in ("fx", "fy") and value <= 0
        ):
            wrong.append(f"{key} = {data[key]}")
        else:
            number[key] = value
    distortion = data.get("distortion") or []
    if not isinstance(distortion, list) or any(finite_number(v) is None for v in distortion):
        wrong.append("distortion is no list of numbers")
    elif len(distortion) not in (0, 4, 5, 8, 12, 14):
        wrong.append(f"{len(distortion)} distortion coefficients")
    if wrong:
        raise InvalidFrame(
            f"{path}: {', '.join(wrong)}",
            "width, height, fx, fy, ppx, ppy in pixels and optionally 4, 5, 8, 12 or 14 distortion coefficients",
        )
    return Intrinsics(
        width=int(number["width"]),
        height=int(number["height"]),
        fx=number["fx"],
        fy=number["fy"],
        ppx=number["ppx"],
        ppy=number["ppy"],
        distortion=tuple(float(v) for v in distortion),
    )


def check_intrinsics_size(path: Path, intrinsics: Intrinsics, colour_path: Path, colour: U8) -> None:
    """Raise InvalidFrame unless the intrinsics were given for the size of ``colour``."""
    if (intrinsics.height, intrinsics.width) != colour.shape[:2]:
        raise InvalidFrame(
            f"{path}: width {intrinsics.width}, height {intrinsics.height}",
            f"{colour.shape[1]} x {colour.shape[0]} as {colour_path}",
            "use the intrinsics of the resolution that was recorded",
        )


def find_camera(colour_path: Path, stem: str, places: tuple[Path, ...]) -> Path:
    """The camera file of the recording ``stem`` whose colour image is ``colour_path``.

    ``STEM.camera.json``; else ``camera_PREFIX.json`` with the longest PREFIX that is the stem or that the stem goes on
    from with ``_``; else ``camera.json``: the last two are looked for in each of ``places`` in turn.

    Raises InvalidFrame when there is none.
    """
    places = tuple(dict.fromkeys(places))
    own = colour_path.with_name(f"{stem}.camera.json")
    if own.is_file():
        return own
    for place in places:
        prefixes = [
            stem[:end] for end in range(len(stem), 0, -1) if end == len(stem) or stem[end] == "_"
        ]  # longest first
        for name in (*(f"camera_{prefix}.json" for prefix in prefixes), "camera.json"):
            if (place / name).is_file():
                return place / name
    raise InvalidFrame(
        f"no camera file for {colour_path}",
        f"{own.name} or camera.json in {' or '.join(str(p) for p in places)}",
        "write width, height, fx, fy, ppx, ppy, depth_scale_m, depth_aligned_to into it",
    )


def read_camera(path: Path) -> tuple[Intrinsics, float]:
    """Intrinsics and metres a depth unit from a ``camera.json``. Raises InvalidFrame that names file and field."""
    data = read_json_object(path)
    intrinsics = read_intrinsics(path, data)
    scale = finite_number(data.get("depth_scale_m"))
    if scale is None or not 0 < scale <= MAX_DEPTH_SCALE_M:
        said = f"depth_scale_m = {data['depth_scale_m']!r}" if "depth_scale_m" in data else "no depth_scale_m"
        raise InvalidFrame(
            f"{path}: {said}", f"metres a depth unit, 0 to {MAX_DEPTH_SCALE_M} (0.001 for depth in millimetres)"
        )
    aligned = data.get("depth_aligned_to")
    if aligned not in _ALIGNED:
        said = f"depth_aligned_to = {aligned!r}" if "depth_aligned_to" in data else "no depth_aligned_to"
        raise InvalidFrame(f"{path}: {said}", "'color'", "record depth aligned to the colour picture")
    return intrinsics, scale


def cameras_of(root: Path) -> list[dict[str, Any]]:
    """What the camera files under ``root`` tell of the cameras (name, serial, settings, the preset's hash), each once.

    Files that say nothing or cannot be read are passed by: reading the frames tells what is wrong with them.
    """
    found: list[dict[str, Any]] = []
    for path in sorted(p for pattern in ("camera*.json", "*.camera.json") for p in root.rglob(pattern)):
        try:
            about = read_json_object(path).get("camera")
        except InvalidFrame:
            continue
        if isinstance(about, dict) and about not in found:
            found.append(about)
    return found
