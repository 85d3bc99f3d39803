"""Recording: frames of any camera into the folder layout that ``fit`` and ``evaluate`` read, or into a raw file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_ad.data.recording_writer import RecordingWriter
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Frame
from edge_ad.sensors import BrokenFrame

SPLITS = ("train", "validation", "test")


class Sink(Protocol):
    """What frames are written to."""

    def write(self, frame: Frame) -> str:
        """Write one frame and return its name."""


@dataclass
class Report:
    """written: names. skipped: reasons and how often, of frames that the camera could not vouch for or give."""

    written: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def recording_folder(out: Path, class_name: str, split: str, label: str) -> Path:
    """``OUT/CLASS/SPLIT/LABEL``. Raises EdgeAdError for names that the layout cannot hold."""
    for what, name in (("class", class_name), ("label", label)):
        if not name or name.startswith(".") or "/" in name or "\0" in name or name in ("train", "validation"):
            raise EdgeAdError(f"{what} '{name}'", "a name for a folder")
    if split not in SPLITS:
        raise EdgeAdError(f"split '{split}'", f"one of: {', '.join(SPLITS)}")
    if split != "test" and label != "good":
        raise EdgeAdError(
            f"label '{label}' in the split {split}", "good parts alone", "record defects with --split test"
        )
    return out / class_name / split / label


def record(
    frames: Iterable[Frame | BrokenFrame],
    sinks: Callable[[Frame], Iterable[Sink]],
    *,
    count: int = 0,
    interval_s: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda name: None,
) -> Report:
    """Write frames until there are ``count`` (0: until the source ends) or ``stop`` says so.

    Parameters
    ----------
    sinks : where a frame goes; asked for each one, because its class decides about the folder.
    interval_s : no frame sooner than so many seconds after the last.

    A frame that carries a health reason is skipped and counted: training data must not hold what a run would refuse.
    """
    report, started, last = Report(), time.monotonic(), -float("inf")
    for frame in frames:
        if stop():
            break
        now = time.monotonic()
        if now - last < interval_s:
            continue
        reasons = (frame.error,) if isinstance(frame, BrokenFrame) else frame.health
        if isinstance(frame, BrokenFrame) or reasons:
            report.skipped[reasons[0]] += 1
            continue
        try:
            names = [sink.write(frame) for sink in sinks(frame)]
        except InvalidFrame as e:
            report.skipped[str(e)] += 1
            continue
        last = now
        report.written.append(names[0])
        tell(names[0])
        if len(report.written) == count:
            break
    report.seconds = time.monotonic() - started
    return report


class FolderSink:
    """Writes each frame under its class in the layout of recordings."""

    def __init__(self, out: Path, class_name: str | None, split: str, label: str) -> None:
        self._out, self._class, self._split, self._label = out, class_name, split, label
        self._writers: dict[str, RecordingWriter] = {}
        if class_name is not None:
            recording_folder(out, class_name, split, label)

    def write(self, frame: Frame) -> str:
        """Write one frame; returns its path below the folder. Raises EdgeAdError when nobody knows its class."""
        name = self._class or frame.class_name
        if name is None:
            raise EdgeAdError("this camera does not know the class of a part", "its name", "pass --class NAME")
        if name not in self._writers:
            self._writers[name] = RecordingWriter(recording_folder(self._out, name, self._split, self._label))
        writer = self._writers[name]
        return str((writer.folder / writer.write(frame)).relative_to(self._out))
