"""``fault:`` - a camera that fails on purpose: to see what a line does when its camera stalls, drifts, drops or lies.

``fault:KIND?at=30&for=20&heals=stream&reset=1&state=FILE&source=URI&fps=30&frames=0&width=64&height=48``

KIND is one of :data:`KINDS`. It begins with frame ``at`` and lasts ``for`` frames (``stall``, ``disconnect``: seconds;
0: for ever). With ``heals`` = ``stream``, ``reset`` or ``process`` that step of the ladder ends it, which ``state``
remembers across processes. ``reset=1``: the camera offers a hardware reset. Without ``source`` the frames are a noisy
box on a plane.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.files import write_json
from edge_ad.frame import Frame, Intrinsics
from edge_ad.sensors import BrokenFrame, Camera, open_camera
from edge_ad.sensors.uri import Uri

KINDS = (
    "none",
    "stall",
    "disconnect",
    "duplicate",
    "ahead",
    "zero",
    "lost",
    "nan",
    "frozen",
    "size",
    "size-after-reset",
    "back",
    "kill",
    "hot",
)
HEALS = ("", "stream", "reset", "process")


def open_uri(uri: Uri) -> FaultCamera:
    """See the module. Raises EdgeAdError for an unknown kind or option."""
    uri.only("at", "for", "heals", "reset", "state", "source", "fps", "frames", "width", "height")
    if uri.path not in KINDS:
        raise EdgeAdError(f"{uri}: no fault '{uri.path}'", f"one of: {', '.join(KINDS)}")
    heals = uri.text("heals") or ""
    if heals not in HEALS:
        raise EdgeAdError(f"{uri}: heals={heals}", "stream, reset or process")
    state = uri.text("state")
    if heals and state is None:
        raise EdgeAdError(f"{uri}: heals={heals} without a state", "state=FILE, which remembers it across processes")
    return FaultCamera(uri, heals, Path(state) if state else None)


class FaultCamera:
    """The frames of another camera (or a box on a plane with sensor noise), with one scripted fault."""

    def __init__(self, uri: Uri, heals: str, state: Path | None) -> None:
        self._uri, self._kind, self._heals, self._state_file = uri, uri.path, heals, state
        self._at = uri.integer("at", 30)
        self._for = uri.number("for", 0, 0, 1e9)
        self._fps = uri.number("fps", 30, 0, 10000)
        self._frames = uri.integer("frames", 0)
        self._size = uri.integer("height", 48, 8), uri.integer("width", 64, 8)
        self._source = uri.text("source")
        self._inner: Camera | None = None
        if uri.switch("reset"):
            self.hardware_reset = self._reset

    def __enter__(self) -> FaultCamera:
        """Open the wrapped camera; refused while disconnected."""
        state = self._state()
        opens, began = int(state.get("opens", 0)), state.get("began")
        healed = state.get("healed", False)
        if began is not None:
            healed |= self._heals == "stream" or (self._heals == "process" and state.get("pid") != os.getpid())
        if self._kind == "size-after-reset" and began is not None:
            # The reset brought another mode; the process after it the right one again.
            healed |= state.get("pid") != os.getpid() and bool(state.get("reset"))
        self._remember(opens=opens + 1, healed=healed)
        if self._kind == "disconnect" and self._lasting(time.monotonic()):
            raise EdgeAdError(f"{self._uri}: the camera is not connected", "a connected camera")
        if self._source is not None:
            self._inner = open_camera(self._source)
            self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the wrapped camera."""
        if self._inner is not None:
            self._inner.__exit__(kind, error, trace)
            self._inner = None

    def describe(self) -> str:
        """One line for people."""
        return f"{self._uri}: {self._kind} from frame {self._at} on"

    def temperature_c(self) -> float:
        """A camera tells its temperature."""
        return 95.0 if self._kind == "hot" else 40.0

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """Frames with timestamps of a camera at ``fps``; the fault where the script has it."""
        period = 1 / self._fps if self._fps else 1 / 30
        start = time.monotonic()
        stalled = 0.0  # how long the stream stood still: the camera's clock went on
        last: Frame | None = None
        for number, item in enumerate(self._items()):
            if self._frames and number >= self._frames:
                return
            due = start + number * period + stalled
            if self._fps:
                time.sleep(max(0.0, due - time.monotonic()))
            if not isinstance(item, Frame):
                yield item
                continue
            at = 100.0 + number * period + stalled
            frame = replace(item, sequence=number, colour_timestamp_s=at, depth_timestamp_s=at, clock="hardware")
            if self._due(number):
                stalled += self._stand_still(number)
                spoilt = self._spoil(frame, last, period)
                yield spoilt
                last = spoilt
            else:
                yield frame
                last = frame

    # -- the fault -------------------------------------------------------------------------------------------------

    def _due(self, number: int) -> bool:
        """Whether the fault is on at this frame; what happens once, or ends by a remedy, is remembered."""
        state = self._state()
        began = state.get("began")
        if self._kind == "none" or state.get("healed"):
            return False
        if began is not None and self._kind in ("stall", "disconnect"):
            return self._lasting(time.monotonic())
        if began is not None and self._kind == "kill":
            return False
        if self._kind == "size-after-reset" and state.get("reset"):
            return True
        timed = self._kind in ("stall", "disconnect")
        if number < self._at or (not timed and self._for > 0 and number >= self._at + self._for):
            return False
        if began is None:
            self._remember(began=time.monotonic(), pid=os.getpid())
        return True

    def _healed(self) -> bool:
        return bool(self._state().get("healed"))

    def _lasting(self, now: float) -> bool:
        state = self._state()
        began = state.get("began")
        if began is None or state.get("healed"):
            return False
        return self._for == 0 or now < began + self._for

    def _stand_still(self, number: int) -> float:
        """Seconds that the stream stood still."""
        begun = time.monotonic()
        state = self._state()
        if self._kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._kind == "disconnect" and self._lasting(begun):
            raise EdgeAdError(f"{self._uri}: the camera went away at frame {number}", "a connected camera")
        elif self._kind == "stall" or (self._kind == "size-after-reset" and not state.get("reset")):
            while self._kind == "size-after-reset" or self._lasting(time.monotonic()):
                time.sleep(0.02)
                if self._kind == "size-after-reset" and self._state().get("reset"):
                    break
        return time.monotonic() - begun

    def _spoil(self, frame: Frame, last: Frame | None, period: float) -> Frame:
        kind = self._kind
        rng = np.random.default_rng(frame.sequence)
        depth = None if frame.depth is None else frame.depth.copy()
        if kind == "duplicate" and last is not None:
            return replace(last, sequence=frame.sequence, name=frame.name)
        if kind == "ahead":
            return replace(frame, colour_timestamp_s=frame.colour_timestamp_s + 3 * period)
        if kind == "back":
            back = frame.colour_timestamp_s - 2 * (frame.sequence - self._at + 1) * period
            return replace(frame, colour_timestamp_s=back, depth_timestamp_s=back)
        if kind == "frozen" and last is not None:
            return replace(frame, colour=last.colour, depth=last.depth, xyz=last.xyz)
        if kind in ("size", "size-after-reset"):
            return _halved(frame)
        if kind in ("zero", "lost", "nan"):
            gone = np.ones(frame.shape, bool) if kind != "lost" else rng.random(frame.shape) < 0.6
            xyz = None if frame.xyz is None else frame.xyz.copy()
            if kind == "nan" and depth is not None:
                depth = depth.astype(np.float32)
            for array in (depth, xyz):
                if array is not None:
                    array[gone] = np.nan if kind == "nan" else 0
            return replace(frame, depth=depth, xyz=xyz)
        return frame

    # -- what outlives a process -------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        if self._state_file is None:
            return self.__dict__.setdefault("_memory", {})
        try:
            state: dict[str, Any] = json.loads(self._state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = {}
        return state

    def _remember(self, **changes: Any) -> None:
        state = {**self._state(), **changes}
        if self._state_file is None:
            self.__dict__["_memory"] = state
        else:
            write_json(self._state_file, state)

    def _reset(self) -> None:
        """The hardware reset, where ``reset=1`` offers it."""
        self._remember(reset=True, healed=self._heals == "reset" or self._healed())

    # -- frames ------------------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Frame | BrokenFrame]:
        if self._inner is not None:
            yield from self._inner
            return
        number = 0
        while True:
            yield _noisy_box(number, *self._size, source=str(self._uri))
            number += 1


def _noisy_box(number: int, height: int, width: int, source: str) -> Frame:
    """A box on a plane 0.5 m away, 0.1 mm a unit, with noise in both pictures: no two frames are equal."""
    rng = np.random.default_rng([7, number])
    depth = np.full((height, width), 5000, np.int64) + rng.integers(-8, 9, (height, width))
    colour = np.full((height, width, 3), 60, np.int64) + rng.integers(-6, 7, (height, width, 3))
    y, x = slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)
    depth[y, x] -= 300
    colour[y, x] += 120
    focal = float(max(height, width))
    return Frame(
        colour=colour.astype(np.uint8),
        depth=depth.astype(np.uint16),
        depth_scale_m=1e-4,
        intrinsics=Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2),
        sequence=number,
        source=source,
        name=f"fault-{number:06d}",
    )


def _halved(frame: Frame) -> Frame:
    """Every second pixel, with intrinsics to match: a camera that came back in another mode."""
    k = frame.intrinsics
    height, width = frame.colour[::2, ::2].shape[:2]
    half = None if k is None else replace(k, width=width, height=height, fx=k.fx / 2, fy=k.fy / 2, ppx=k.ppx / 2)
    return replace(
        frame,
        colour=np.ascontiguousarray(frame.colour[::2, ::2]),
        depth=None if frame.depth is None else np.ascontiguousarray(frame.depth[::2, ::2]),
        xyz=None if frame.xyz is None else np.ascontiguousarray(frame.xyz[::2, ::2]),
        intrinsics=half,
    )
