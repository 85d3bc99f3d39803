"""Writes frames as recordings (see :mod:`edge_ad.data.recordings`), so that a kill never leaves half of one to be read.

While a recording is written a hidden file ``.NAME.partial`` stands beside it: readers pass it by, and the next writer
in that folder removes what a dead one left.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data.camera_file import MAX_DEPTH_SCALE_M
from edge_ad.data.recordings import COLOUR, DEPTH, MASK, partial
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.files import alive, write_bytes, write_json
from edge_ad.frame import Frame, Intrinsics

SCALE_M = 1e-4
"""Metres a unit of depth that comes in metres: 0.1 mm, up to 6.55 m. Depth in units of its own is kept as it is."""
_NUMBER = re.compile(r"([0-9]{5,})(?:\..*)?\Z")


class RecordingWriter:
    """Writes frames into one folder, numbered on from what is there.

    The folder's ``camera.json`` is that of its first frame; a frame that differs from it gets a ``NAME.camera.json``.
    """

    def __init__(self, folder: Path) -> None:
        """Raises EdgeAdError when the folder cannot be made."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise EdgeAdError(f"cannot make {folder} ({e.strerror})", "a folder for recordings") from None
        sweep_partial(folder)
        self._next = next_number(folder)

    def write(self, frame: Frame) -> str:
        """Write one frame and return its name; when this returns, all its files are on the disk.

        Raises EdgeAdError for a frame that the layout cannot hold, or when the disk takes no more; nothing of it stays.
        """
        files, about = encode(frame)
        stem = self._claim()
        written: list[Path] = []
        try:
            camera = self.folder / "camera.json"
            if not camera.is_file():
                write_json(camera, about)
            elif json.loads(camera.read_text(encoding="utf-8")) != about:
                written.append(self.folder / f"{stem}.camera.json")
                write_json(written[-1], about)
            for suffix, data in files.items():
                written.append(self.folder / (stem + suffix))
                write_bytes(written[-1], data)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            partial(self.folder, stem).unlink(missing_ok=True)
            raise
        partial(self.folder, stem).unlink()
        return stem

    def _claim(self) -> str:
        """A new name, taken by creating its mark: two recorders in one folder never meet."""
        while True:
            stem = f"{self._next:05d}"
            self._next += 1
            if any((self.folder / (stem + suffix)).exists() for suffix in (COLOUR, DEPTH)):
                continue
            try:
                with open(partial(self.folder, stem), "x", encoding="ascii") as f:
                    f.write(str(os.getpid()))
                return stem
            except FileExistsError:
                continue
            except OSError as e:
                raise EdgeAdError(
                    f"cannot write in {self.folder} ({e.strerror})", "", "check space and rights"
                ) from None


def next_number(folder: Path) -> int:
    """One more than the highest number among the recordings in ``folder``."""
    found = (_NUMBER.match(path.name) for path in folder.iterdir())
    return max((int(m[1]) for m in found if m), default=-1) + 1


def sweep_partial(folder: Path) -> int:
    """Remove the half written recordings of processes that are gone; returns how many there were."""
    count = 0
    for mark in folder.glob(".*.partial"):
        try:
            if alive(int(mark.read_text(encoding="ascii"))):
                continue
        except (ValueError, OSError):
            pass
        stem = mark.name[1 : -len(".partial")]
        for suffix in (COLOUR, DEPTH, MASK, ".json", ".camera.json"):
            (folder / (stem + suffix)).unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        count += 1
    return count


def encode(frame: Frame) -> tuple[dict[str, bytes], dict[str, Any]]:
    """File contents by suffix, and the ``camera.json`` of a frame. Raises InvalidFrame."""
    from edge_ad.runtime.registration import registered

    frame = registered(frame)
    if frame.intrinsics is None:
        raise InvalidFrame("a frame without intrinsics", "a camera that gives them")
    depth, scale = depth16(frame)
    if not depth.any():
        raise InvalidFrame("no pixel has depth", "a depth image that is not all zero")
    if depth.shape != frame.shape:
        raise InvalidFrame(f"depth of {depth.shape[1]} x {depth.shape[0]}", f"{frame.shape[1]} x {frame.shape[0]}")
    times = {
        "colour_timestamp_s": frame.colour_timestamp_s,
        "depth_timestamp_s": frame.depth_timestamp_s,
        "clock": frame.clock,
        "sequence": frame.sequence,
        "source": frame.source,
        "metadata": {k: v for k, v in frame.metadata.items() if k != "camera"},
    }
    files = {
        DEPTH: _png(depth),
        ".json": (json.dumps(times, indent=1) + "\n").encode(),
        COLOUR: _png(np.ascontiguousarray(frame.colour[..., ::-1])),
    }
    return files, camera_json(frame.intrinsics, scale, dict(frame.metadata.get("camera", {})))


def camera_json(k: Intrinsics, depth_scale_m: float, camera: dict[str, Any] | None = None) -> dict[str, Any]:
    """What ``camera.json`` holds; ``camera``: its name, serial, settings and the preset's hash."""
    about: dict[str, Any] = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "ppx": k.ppx, "ppy": k.ppy}
    about |= {"depth_scale_m": depth_scale_m, "depth_aligned_to": "color"}
    if any(k.distortion):
        about["distortion"] = list(k.distortion)
    return {**about, **({"camera": camera} if camera else {})}


def depth16(frame: Frame) -> tuple[NDArray[np.uint16], float]:
    """(H, W) uint16 depth and its scale. Depth in metres is rounded to 0.1 mm; beyond 6.55 m it becomes "no depth"."""
    if frame.depth is not None and frame.depth.dtype == np.uint16:
        if not 0 < frame.depth_scale_m <= MAX_DEPTH_SCALE_M:
            raise InvalidFrame(f"depth_scale_m = {frame.depth_scale_m}", f"0 to {MAX_DEPTH_SCALE_M}")
        return np.asarray(frame.depth, np.uint16), frame.depth_scale_m
    if frame.depth is not None:
        metres = frame.depth.astype(np.float64) * frame.depth_scale_m
    elif frame.xyz is not None:
        metres = frame.xyz[..., 2].astype(np.float64)
    else:
        raise InvalidFrame("a frame with neither depth nor xyz", "one of them")
    with np.errstate(invalid="ignore"):
        units = np.rint(metres / SCALE_M)
        return np.where((units > 0) & (units <= 65535), units, 0).astype(np.uint16), SCALE_M


def _png(image: NDArray[Any]) -> bytes:
    # Level 1: a third of the time of the default for a few per cent more bytes.
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise InvalidFrame(f"an image of shape {image.shape}, {image.dtype}", "one that PNG can hold")
    return data.tobytes()
