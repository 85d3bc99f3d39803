"""Replay regression: write down the results of a run, and hold a later run against them, bit for bit.

The file is JSON lines: a header (format, backend, precision, bundle), one line a frame (mask packed, scores as exact
hexadecimal floats, SHA-256 of the map), and a last line with the count. Nothing is pickled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.files import temporary
from edge_ad.frame import Bool, Frame, Result
from edge_ad.outputs import Output

FORMAT = 1
_LINE_BYTES = 64 << 20


def document(result: Result) -> dict[str, Any]:
    """One frame's line: all that must not change from run to run, so no times."""
    return {
        "name": result.name,
        "decision": result.decision,
        "health": result.health,
        "class": result.class_name,
        "score": float(result.score).hex(),
        "threshold": float(result.threshold).hex(),
        "mask": None if result.mask is None else _pack(result.mask),
        "map": None if result.map is None else hashlib.sha256(result.map.tobytes()).hexdigest(),
    }


def _pack(mask: Bool) -> dict[str, Any]:
    data = zlib.compress(np.packbits(mask).tobytes(), 6)
    return {"shape": list(mask.shape), "bits": base64.b64encode(data).decode()}


def _unpack(packed: Any, where: str) -> Bool | None:
    if packed is None:
        return None
    try:
        height, width = (int(v) for v in packed["shape"])
        size = -(-height * width // 8)
        if height <= 0 or width <= 0 or size > _LINE_BYTES:
            raise ValueError("its shape")
        data = zlib.decompressobj().decompress(base64.b64decode(packed["bits"], validate=True), size + 1)
        if len(data) != size:
            raise ValueError("its length")
        bits = np.unpackbits(np.frombuffer(data, np.uint8), count=height * width)
    except (KeyError, TypeError, ValueError, zlib.error) as e:
        raise EdgeAdError(f"{where}: a mask that cannot be read ({e})", "as --record-results wrote it") from None
    return bits.reshape(height, width).astype(np.bool_)


class RecordResults(Output):
    """Writes the results of a run to ``path``; it appears whole, when the run ended well, or not at all.

    settings : what the results depend on (backend, precision, bundle); a later run must agree.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._tmp, self._count = path, temporary(path), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] | None = open(self._tmp, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as e:
            raise EdgeAdError(f"cannot write {path}: {e.strerror}", "a folder that can be written") from None
        self._line({"edge_ad_results": FORMAT, **settings})

    def write(self, frame: Frame | None, result: Result) -> None:
        """See :class:`Output`."""
        del frame
        self._line(document(result))
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file, or, after an error, leave none."""
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._file = None
            self._tmp.unlink(missing_ok=True)

    def close(self) -> None:
        """Write the last line and give the file its name."""
        if self._file is None:
            return
        self._line({"frames": self._count})
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._tmp, self._path)
        except OSError as e:
            raise EdgeAdError(f"cannot write {self._path}: {e.strerror}", "", "free some space") from None
        finally:
            self._file = None

    def _line(self, value: Mapping[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(json.dumps(value, allow_nan=False) + "\n")
        except OSError as e:
            raise EdgeAdError(f"cannot write {self._path}: {e.strerror}", "", "free some space") from None


class ExpectResults(Output):
    """Holds each result against the recorded one; the first difference is an EdgeAdError that names frame and
    difference.

    Raises EdgeAdError at once for a file that is none, or that was recorded with other ``settings``.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._lines = self._read()
        header = next(self._lines)
        if header.get("edge_ad_results") != FORMAT:
            raise EdgeAdError(f"{path} holds no results of format {FORMAT}", "a file of edge-ad run --record-results")
        for name, value in settings.items():
            if header.get(name) != value:
                raise EdgeAdError(
                    f"{path} was recorded with {name} {header.get(name)}, and this run has {value}",
                    "the same, because results agree bit for bit on one backend alone",
                    "record anew with --record-results",
                )
        self.checked = 0

    def write(self, frame: Frame | None, result: Result) -> None:
        """See :class:`Output`."""
        del frame
        expected = next(self._lines)
        where = f"frame {self.checked} ({result.name})"
        if "frames" in expected:
            raise EdgeAdError(f"{where} is one too many", f"{self.checked} frames, as in {self._path}")
        difference = self._difference(expected, result)
        if difference:
            raise EdgeAdError(f"{where} differs from {self._path}: {difference}")
        self.checked += 1

    def finish(self) -> int:
        """After the last frame: the number of frames that agreed. Raises EdgeAdError when some are missing."""
        last = next(self._lines)
        if "frames" not in last:
            wanted = f"frame {self.checked} ({last.get('name')}) of {self._path}"
            raise EdgeAdError(f"the run ended after {self.checked} frames", wanted)
        return self.checked

    def _difference(self, expected: dict[str, Any], result: Result) -> str:
        found = document(result)
        if expected.get("name") != found["name"]:
            return f"it is named {expected.get('name')} there"
        if expected.get("mask") != found["mask"]:
            told = _mask_difference(_unpack(expected.get("mask"), str(self._path)), result.mask)
            if told:
                return told
        for key in ("decision", "health", "class"):
            if expected.get(key) != found[key]:
                return f"{key} {found[key]}, expected {expected.get(key)}"
        for key in ("score", "threshold"):
            if expected.get(key) != found[key]:
                return f"{key} {float.fromhex(found[key])!r}, expected {_number(expected.get(key))!r}"
        if expected.get("map") != found["map"]:
            return "the mask agrees, the map does not"
        return ""

    def _read(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self._path, encoding="utf-8") as file:
                count = -1
                while line := file.readline(_LINE_BYTES):
                    value = json.loads(line)
                    if not isinstance(value, dict):
                        raise ValueError("a line that is no object")
                    if "frames" in value and value["frames"] != count:
                        raise ValueError(f"{count} frames of {value['frames']}")
                    yield value
                    if "frames" in value:
                        return
                    count += 1
        except OSError as e:
            raise EdgeAdError(f"{self._path}: {e.strerror}", "a file of edge-ad run --record-results") from None
        except ValueError as e:
            raise EdgeAdError(
                f"{self._path} is damaged ({e})", "a file of edge-ad run --record-results", "record anew"
            ) from None
        raise EdgeAdError(f"{self._path} ends in the middle", "a last line with the count", "record anew")


def _number(text: Any) -> float:
    try:
        return float.fromhex(str(text))
    except ValueError:
        return float("nan")


def _mask_difference(expected: Bool | None, found: Bool | None) -> str:
    if expected is None or found is None:
        if expected is found:
            return ""
        return f"{'a mask' if found is not None else 'no mask'}, expected {'one' if expected is not None else 'none'}"
    if expected.shape != found.shape:
        return f"a mask of {found.shape[1]} x {found.shape[0]}, expected {expected.shape[1]} x {expected.shape[0]}"
    rows, cols = np.nonzero(expected != found)
    if not len(rows):
        return ""
    return (
        f"the mask differs in {len(rows)} of {found.size} pixels, the first at x {cols[0]}, y {rows[0]} "
        f"({int(found.sum())} set, expected {int(expected.sum())})"
    )
