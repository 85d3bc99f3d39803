"""``folder:DIR``: overlay, mask and map of every frame, and one line a frame in ``results.jsonl``.

A line is written after its frame's pictures, so every file that a line names is there and whole. A run that was
killed may be started again on the same folder: it goes on behind the last whole line.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.files import write_image
from edge_ad.frame import F32, Frame, Result
from edge_ad.outputs import Output
from edge_ad.outputs.overlay import draw_overlay

RESULTS = "results.jsonl"
PICTURES = ("overlay", "mask", "map")
NAME_BYTES = 150  # file systems take 255; the rest is for suffixes and temporary names


@dataclass(frozen=True)
class FolderOptions:
    """Which pictures are written; each costs an encoding and an fsync a frame."""

    overlay: bool = True
    mask: bool = True
    map: bool = True


def open_folder(address: str) -> FolderOutput:
    """Open ``DIR`` or ``DIR?overlay=0&mask=0&map=0``."""
    folder, _, query = address.partition("?")
    if not folder:
        raise EdgeAdError("output 'folder:' without a folder", "folder:DIR", "e.g. --output folder:results")
    chosen: dict[str, bool] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in PICTURES or value not in ("0", "1"):
            raise EdgeAdError(
                f"output 'folder:{address}': option '{key}={value}'", "overlay, mask or map, each =0 or =1"
            )
        chosen[key] = value == "1"
    return FolderOutput(Path(folder).expanduser(), FolderOptions(**chosen))


def safe_name(name: str, sequence: int) -> str:
    """A file name without suffix for a frame's name: no separators, no control characters, no leading dot.

    >>> safe_name("bolt/../../etc/passwd", 3)
    'bolt_.._.._etc_passwd'
    >>> safe_name("", 3)
    '000003'
    """
    clean = re.sub(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\s]', "_", name)
    clean = clean.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore")
    clean = clean.lstrip(".").rstrip(". ")
    return clean or f"{sequence:06d}"


def map_to_uint16(values: F32) -> tuple[NDArray[np.uint16], float]:
    """(H, W) map as 16-bit grey levels and the map value of one level; ``value = level * scale``.

    Negative and non-finite values become 0.
    """
    finite = np.where(np.isfinite(values), values, 0.0).clip(min=0.0).astype(np.float64)
    peak = float(finite.max(initial=0.0))
    scale = peak / 65535.0 if peak > 0 else 1.0
    return np.rint(finite / scale).astype(np.uint16), scale


class FolderOutput(Output):
    """Writes into ``folder``; see the module's text for the layout."""

    def __init__(self, folder: Path, options: FolderOptions | None = None) -> None:
        self.folder = folder
        self.options = options or FolderOptions()
        self._lines = _open_results(folder)

    def write(self, frame: Frame | None, result: Result) -> None:
        if self._lines < 0:
            raise EdgeAdError(f"output folder {self.folder} is closed")
        stem = self._free_stem(safe_name(result.name or (frame.name if frame is not None else ""), result.sequence))
        files: dict[str, str] = {}
        line = result.to_json()
        if frame is not None and self.options.overlay:
            files["overlay"] = self._picture("overlay", stem, draw_overlay(frame, result))
        if result.mask is not None and self.options.mask:
            files["mask"] = self._picture("mask", stem, result.mask.astype(np.uint8) * 255)
        if result.map is not None and self.options.map:
            levels, scale = map_to_uint16(result.map)
            files["map"] = self._picture("map", stem, levels)
            line["map_scale"] = scale
        line["files"] = files
        self._append(json.dumps(_finite(line), ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> None:
        if self._lines >= 0:
            os.close(self._lines)
            self._lines = -1

    def _free_stem(self, stem: str) -> str:
        """``stem``, or ``stem-2``, ``stem-3``, ... where an earlier frame of that name left pictures."""
        number, free = 1, stem
        while any((self.folder / kind / f"{free}.png").exists() for kind in PICTURES):
            number += 1
            free = f"{stem}-{number}"
        return free

    def _picture(self, kind: str, stem: str, image: np.ndarray[Any, Any]) -> str:
        write_image(self.folder / kind / f"{stem}.png", image)
        return f"{kind}/{stem}.png"

    def _append(self, line: str) -> None:
        """All of the line or nothing of it: a disk that is full leaves no torn line behind."""
        end = os.lseek(self._lines, 0, os.SEEK_END)
        data = memoryview(line.encode("utf-8", "backslashreplace"))
        try:
            while data:
                data = data[os.write(self._lines, data) :]
        except OSError as e:
            os.ftruncate(self._lines, end)
            raise EdgeAdError(
                f"cannot write {self.folder / RESULTS}: {e.strerror}", "", "free some space or check the permissions"
            ) from e


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return value


def _open_results(folder: Path) -> int:
    """Descriptor of DIR/results.jsonl, locked, standing behind the last whole line."""
    path = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(folder.iterdir()):
            raise EdgeAdError(
                f"output folder {folder} holds something else already",
                f"an empty folder, or one with {RESULTS} of an earlier run",
                "name a new folder",
            )
        lines = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise EdgeAdError(
            f"cannot write into {folder}: {e.strerror}", "a folder that can be written", "check the path and its owner"
        ) from e
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check_own(path)
        _drop_torn_line(lines)
    except BaseException as e:
        os.close(lines)
        if isinstance(e, BlockingIOError):
            raise EdgeAdError(
                f"another run writes into {folder}", "a folder of its own for each run", "name a new folder"
            ) from None
        raise
    return lines


def _check_own(path: Path) -> None:
    with open(path, "rb") as f:
        first = f.readline(1 << 20)
    if not first.endswith(b"\n"):
        return  # empty, or the only line is torn
    try:
        own = "decision" in json.loads(first)
    except (ValueError, TypeError):
        own = False
    if not own:
        raise EdgeAdError(f"{path} is not this program's", "lines with a decision each", "name a new folder")


def _drop_torn_line(lines: int) -> None:
    """Cut what stands behind the last newline: a kill or a power cut may have torn the last line."""
    size = end = os.lseek(lines, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(lines, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(lines, end)
