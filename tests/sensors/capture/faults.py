"""Watching a camera that fails on purpose, with clocks fast enough for a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_ad.frame import Frame
from edge_ad.sensors import BrokenFrame
from edge_ad.sensors.capture import CameraHealth, WatchedCamera, WatchOptions

FAST = WatchOptions(
    stall_s=0.4,
    bad_s=0.15,
    low_depth_s=0.5,
    retry_s=0.15,
    stream_s=0.5,
    reset_s=0.4,
    process_s=3.0,
    backoff_s=0.1,
    report_s=0.1,
    calm_s=5.0,
    stop_s=0.5,
)
FPS = 100


@dataclass
class Seen:
    """What came out of one watched camera."""

    items: list[Frame | BrokenFrame] = field(default_factory=list)
    health: CameraHealth = field(default_factory=CameraHealth)
    said: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)

    @property
    def frames(self) -> list[Frame]:
        return [i for i in self.items if isinstance(i, Frame)]

    @property
    def broken(self) -> list[BrokenFrame]:
        return [i for i in self.items if isinstance(i, BrokenFrame)]

    def reasons(self) -> str:
        return " | ".join(r for f in self.frames for r in f.health)

    def trouble(self) -> list[Frame | BrokenFrame]:
        """From the first item that is not well to the last one."""
        ill = [n for n, i in enumerate(self.items) if isinstance(i, BrokenFrame) or i.health]
        return self.items[ill[0] : ill[-1] + 1] if ill else []


def fault(kind: str, folder: Path, **options: object) -> str:
    """A ``fault:`` URI whose memory lies in ``folder``."""
    given = {"at": 15, "fps": FPS, "state": folder / "state.json", **options}
    return f"fault:{kind}?" + "&".join(f"{k}={v}" for k, v in given.items())


def watch(
    uri: str,
    until: Callable[[Seen], bool],
    options: WatchOptions = FAST,
    *,
    lossless: bool = True,
    on_item: Callable[[Seen, WatchedCamera], None] | None = None,
    limit_s: float = 30.0,
) -> Seen:
    """Take items until ``until`` is satisfied."""
    seen = Seen()
    end = time.monotonic() + limit_s
    with WatchedCamera(uri, options, lossless=lossless, say=seen.said.append) as camera:
        for item in camera:
            seen.items.append(item)
            if not seen.pids or seen.pids[-1] != camera.pid:
                seen.pids.append(camera.pid)
            if on_item is not None:
                on_item(seen, camera)
            if until(seen):
                break
            assert time.monotonic() < end, f"nothing of the kind in {limit_s} s: {seen.said}"
        seen.health = camera.health
    return seen


def healed(after: int = 5) -> Callable[[Seen], bool]:
    """The camera had a trouble, and the last frames are well again."""

    def done(seen: Seen) -> bool:
        last = seen.items[-after:]
        ill = any(isinstance(i, BrokenFrame) or i.health for i in seen.items)
        return ill and len(last) == after and all(isinstance(i, Frame) and not i.health for i in last)

    return done


def steps_taken(count: int) -> Callable[[Seen], bool]:
    """So many steps of the ladder were told."""
    return lambda seen: sum(s.endswith(STEP_WORDS) for s in seen.said) >= count


STEP_WORDS = (": retry", ": restart stream", ": hardware reset", ": restart process")
