"""What can be seen amiss in the frames themselves: pure checks, one frame after the other, with times given in.

They run beside the camera, on every frame, also on those that a slow consumer never takes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame

REPEATED, MISMATCHED, CLOCK, FROZEN = "repeated", "mismatched", "clock", "frozen"
NO_DEPTH, LOW_DEPTH, SIZE, HOT = "no depth", "low depth", "size", "hot"
STALLED, BROKEN, DIED = "stalled", "broken", "process died"
KINDS = (REPEATED, MISMATCHED, CLOCK, FROZEN, NO_DEPTH, LOW_DEPTH, SIZE, HOT, STALLED, BROKEN, DIED)

USUAL_FRAMES = 30
"""Good frames from which the usual share of pixels with depth is learnt."""


@dataclass(frozen=True)
class WatchOptions:
    """When something is amiss, and how long each step of the ladder may take. Times in seconds.

    stall_s : no frame for so long is a stall. bad_s : bad frames for so long are worth a step. low_depth_s : the same
    for a low share of depth (a hand in view ends by itself). keep_share : least share of the usual pixels with depth.
    identical : so many equal pictures in a row are frozen. skew_periods : largest distance of colour and depth, in
    frame periods. jump_s : largest difference between the camera's clock and ours from frame to frame.
    max_temperature_c : 0: no limit. retry_s, stream_s, reset_s, process_s : what a step may take before the next one
    comes. backoff_s, backoff_max_s : pauses between further attempts, doubling. heal_frames : good frames in a row that
    end a trouble. calm_s : a trouble that comes back sooner goes on where the ladder was. report_s : an outage is told
    so often. open_s : for the first opening. stop_s : for a camera to close before it is killed.
    """

    stall_s: float = 1.0
    bad_s: float = 1.0
    low_depth_s: float = 10.0
    keep_share: float = 0.7
    identical: int = 2
    skew_periods: float = 0.75
    jump_s: float = 1.0
    max_temperature_c: float = 70.0
    retry_s: float = 1.0
    stream_s: float = 5.0
    reset_s: float = 15.0
    process_s: float = 10.0
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    heal_frames: int = 3
    calm_s: float = 30.0
    report_s: float = 1.0
    open_s: float = 30.0
    stop_s: float = 3.0

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            if not math.isfinite(value) or value < 0:
                raise EdgeAdError(f"watchdog: {name} is {value}", "a number >= 0")
        if not (self.stall_s > 0 and self.identical >= 2 and self.heal_frames >= 1 and self.keep_share <= 1):
            raise EdgeAdError(
                f"watchdog: stall_s {self.stall_s}, identical {self.identical}, heal_frames {self.heal_frames}, "
                f"keep_share {self.keep_share}",
                "stall_s > 0, identical >= 2, heal_frames >= 1, keep_share <= 1",
            )


@dataclass(frozen=True)
class Fault:
    """One thing amiss: its kind (one of :data:`KINDS`) and the words for it."""

    kind: str
    text: str


class FrameChecker:
    """Call it with every frame in order; it returns what is amiss.

    memory : what an earlier checker of the same camera knew (:attr:`memory`), so that a camera that comes back with
    half of its depth, or in another mode, is not taken for what is usual.
    """

    def __init__(self, options: WatchOptions, memory: dict[str, Any] | None = None) -> None:
        self._options = options
        memory = memory or {}
        self._size: tuple[int, int] | None = tuple(memory["size"]) if memory.get("size") else None
        self._usual: float | None = memory.get("usual_share")
        self._shares: list[float] = []
        self._last: Frame | None = None
        self._arrival = 0.0
        self._periods: deque[float] = deque(maxlen=15)
        self._equal = {"colour": 1, "depth": 1}
        self._thumbs: dict[str, NDArray[Any]] = {}

    @property
    def memory(self) -> dict[str, Any]:
        """What the next checker should know: frame size (height, width) and the usual share of depth."""
        return {"size": self._size, "usual_share": self._usual}

    def new_stream(self) -> None:
        """The camera was opened anew: its clock and numbers may start again; what is usual stays."""
        self._last = None
        self._periods.clear()
        self._thumbs = {}

    def __call__(self, frame: Frame, now: float, temperature_c: float | None = None) -> tuple[Fault, ...]:
        """Faults of one frame that arrived at ``now`` (monotonic seconds)."""
        faults = [*self._timing(frame, now)]
        faults += self._pixels(frame, repeated=any(f.kind == REPEATED for f in faults))
        limit = self._options.max_temperature_c
        told = [
            float(v) for k, v in frame.metadata.items() if k.endswith("temperature") and isinstance(v, (int, float))
        ]
        temperature_c = max([*told, *([] if temperature_c is None else [temperature_c])], default=None)
        if temperature_c is not None and limit > 0 and temperature_c > limit:
            faults.append(Fault(HOT, f"the camera is at {temperature_c:.0f} degrees C (limit {limit:.0f})"))
        self._last, self._arrival = frame, now
        return tuple(faults)

    def _timing(self, frame: Frame, now: float) -> list[Fault]:
        colour, depth, last = frame.colour_timestamp_s, frame.depth_timestamp_s, self._last
        if frame.clock == "none":
            return []
        if not (math.isfinite(colour) and math.isfinite(depth)):
            return [Fault(CLOCK, f"timestamps {colour} and {depth}")]
        faults: list[Fault] = []
        if last is not None and last.clock == frame.clock:
            faults += self._steps(frame, last, now - self._arrival)
        period = float(np.median(self._periods)) if len(self._periods) >= 2 else 0.0
        skew = colour - depth
        if abs(skew) > (self._options.skew_periods * period + 0.001 if period else 0.1):
            ahead, behind = ("colour", "depth") if skew > 0 else ("depth", "colour")
            count = f"{round(abs(skew) / period)} frames " if period else ""
            faults.append(Fault(MISMATCHED, f"{ahead} is ahead of {behind} by {count}({abs(skew) * 1e3:.0f} ms)"))
        return faults

    def _steps(self, frame: Frame, last: Frame, arrival: float) -> list[Fault]:
        steps = {
            "colour": frame.colour_timestamp_s - last.colour_timestamp_s,
            "depth": frame.depth_timestamp_s - last.depth_timestamp_s,
        }
        back = min(steps.values())
        if back < 0:
            return [Fault(CLOCK, f"timestamps went back by {-back:.3f} s")]
        same = [name for name, step in steps.items() if step == 0]
        if same:
            return [Fault(REPEATED, f"repeated {' and '.join(same)} picture")]
        # Seen from the usual step, so that a camera that is faster than real time (a replay) jumps no more than it
        # does.
        if abs(steps["depth"] - arrival) > self._options.jump_s:
            return [Fault(CLOCK, f"the camera's clock went on by {steps['depth']:.3f} s in {arrival:.3f} s")]
        self._periods.append(steps["depth"])
        return []

    def _pixels(self, frame: Frame, repeated: bool) -> list[Fault]:
        if self._size is None:
            self._size = frame.shape
        if frame.shape != self._size:
            (h, w), (eh, ew) = frame.shape, self._size
            return [Fault(SIZE, f"a frame of {w} x {h} pixels, expected {ew} x {eh}")]
        depth = frame.depth if frame.depth is not None else None if frame.xyz is None else frame.xyz[..., 2]
        if depth is None:
            return [Fault(NO_DEPTH, "a frame without depth")]
        small = np.ascontiguousarray(depth[::4, ::4])
        share = float(np.count_nonzero(np.isfinite(small) & (small > 0)) / max(1, small.size))
        faults = self._frozen({"colour": np.ascontiguousarray(frame.colour[::8, ::8]), "depth": small}, share, repeated)
        if share == 0:
            return [*faults, Fault(NO_DEPTH, "no pixel has depth")]
        if self._usual is not None and share < self._options.keep_share * self._usual:
            text = f"depth on {share:.0%} of the pixels (usual {self._usual:.0%})"
            return [*faults, Fault(LOW_DEPTH, text)]
        if self._usual is None and not faults:
            self._shares.append(share)
            # From the first five on a provisional value, so that the first second is watched as well.
            if len(self._shares) >= USUAL_FRAMES:
                self._usual = float(np.median(self._shares))
            elif len(self._shares) > 5 and share < self._options.keep_share * float(np.median(self._shares)):
                text = f"depth on {share:.0%} of the pixels (usual {float(np.median(self._shares)):.0%})"
                self._shares.pop()
                faults.append(Fault(LOW_DEPTH, text))
        return faults

    def _frozen(self, thumbs: dict[str, NDArray[Any]], share: float, repeated: bool) -> list[Fault]:
        faults = []
        for name, thumb in thumbs.items():
            last = self._thumbs.get(name)
            equal = last is not None and last.shape == thumb.shape and last.tobytes() == thumb.tobytes()
            self._equal[name] = self._equal[name] + 1 if equal else 1
            empty = name == "depth" and share == 0  # told as such
            if self._equal[name] >= self._options.identical and not repeated and not empty:
                faults.append(Fault(FROZEN, f"{self._equal[name]} equal {name} pictures in a row"))
        self._thumbs = thumbs
        return faults
