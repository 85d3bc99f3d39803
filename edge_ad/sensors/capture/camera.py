"""A camera that survives: its capture process is watched, and helped up the ladder when it fails.

While a trouble lasts the stream goes on: frames carry their ``health`` reasons (their results are ``degraded`` and
never ``normal``), and where there is no frame a :class:`BrokenFrame` says so once a second (its result is ``invalid``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors import BrokenFrame
from edge_ad.sensors.capture import ladder as steps
from edge_ad.sensors.capture.health import CameraHealth
from edge_ad.sensors.capture.ladder import Ladder
from edge_ad.sensors.capture.link import CaptureLink, Delivered, Message
from edge_ad.sensors.capture.restarting import POLL_S, RestartingLink
from edge_ad.sensors.capture.watchdog import (
    BROKEN,
    DIED,
    FROZEN,
    LOW_DEPTH,
    MISMATCHED,
    NO_DEPTH,
    REPEATED,
    SIZE,
    STALLED,
    Fault,
    WatchOptions,
)

CLIMBS = (FROZEN, MISMATCHED, REPEATED, NO_DEPTH, SIZE, LOW_DEPTH)
"""Kinds of faults in frames that a step of the ladder may cure; a warm camera or one step of a clock it cannot."""


class WatchedCamera:
    """The camera ``uri`` in its own process, under the watchdog.

    Parameters
    ----------
    options : times and limits. lossless : deliver every frame (a recorded source); else the newest wins.
    say : told one line at every step. stop : asked while waiting; True ends the stream (a signal came).

    Entering raises EdgeAdError when the camera cannot be opened at all; later troubles raise nothing.
    """

    def __init__(
        self,
        uri: str,
        options: WatchOptions | None = None,
        *,
        lossless: bool = False,
        say: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._uri, self._options, self._lossless = uri, options or WatchOptions(), lossless
        self._say, self._stop = say, stop
        self._link = RestartingLink(uri, self._options, lossless=lossless)
        self._ladder = Ladder(self._options)
        self._health = CameraHealth()
        self._opened = 0.0
        self._streams = 0  # opened after the first one; frames of different streams never share a name
        self._sequence = 0
        self._good = 0  # good frames in a row
        self._bad_since: float | None = None
        self._error = ""  # why the stream ended by itself
        self._next_report = 0.0
        self._opening_until = 0.0  # silence is no stall while a new stream starts

    # -- the camera interface --------------------------------------------------------------------------------------

    def __enter__(self) -> WatchedCamera:
        """Start the process and wait until the camera is open."""
        self._opened = time.monotonic()
        self._link.start()
        try:
            self._link.await_open(self._opened + self._options.open_s, self._stop)
        except BaseException:
            self._link.close()
            raise
        self._expect_stream(time.monotonic())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; it never outlives this."""
        self._link.close()

    def describe(self) -> str:
        """One line for people."""
        return f"{self._link.described}, in its own process"

    @property
    def live(self) -> bool:
        """Whether newer frames replace those that wait."""
        return not self._lossless

    @property
    def health(self) -> CameraHealth:
        """Counts up to now."""
        self._health.dropped, self._health.faults = self._link.dropped, self._link.faults
        self._health.temperature_c = self._link.temperature_c
        return self._health

    @property
    def pid(self) -> int:
        """Process id of the capture process (0: none)."""
        return self._link.pid

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """Frames, and reports while there is none, until the source ends or ``stop`` says so."""
        while not self._stop():
            link = self._link.present
            item = link.take(POLL_S)
            now = time.monotonic()
            if isinstance(item, Delivered):
                yield self._judge(item, now)
            elif isinstance(item, Message):
                if item.kind == "end":
                    return
                report = self._hear(item, now)
                if report is not None:
                    yield report
            else:
                report = self._silence(link, now)
                if report is not None:
                    yield report

    # -- what comes in ---------------------------------------------------------------------------------------------

    def _judge(self, item: Delivered, now: float) -> Frame:
        reasons = [f.text for f in item.faults]
        self._opening_until = 0.0
        if item.faults:
            self._good = 0
            self._see_bad(item.faults, now)
        else:
            self._good += 1
            self._bad_since = None
            if self._ladder.active:
                if self._good >= self._options.heal_frames:
                    self._recover(now)
                else:
                    reasons.append(f"the camera is recovering ({self._ladder.step})")
        health = (*item.frame.health, *reasons)
        name = f"{item.frame.name}-r{self._streams}" if self._streams else item.frame.name
        frame = replace(item.frame, sequence=self._sequence, name=name, health=health)
        self._sequence += 1
        self._health.frames += 1
        self._health.degraded += bool(health)
        self._state("; ".join(health))
        return frame

    def _see_bad(self, faults: tuple[Fault, ...], now: float) -> None:
        curable = [f for f in faults if f.kind in CLIMBS]
        if not curable:
            return
        if self._bad_since is None:
            self._bad_since = now
        low_only = all(f.kind == LOW_DEPTH for f in curable)
        patience = self._options.low_depth_s if low_only else self._options.bad_s
        if self._ladder.active or now - self._bad_since >= patience:
            self._climb("; ".join(f.text for f in curable), now)

    def _hear(self, message: Message, now: float) -> BrokenFrame | None:
        if message.kind == "broken":
            self._link.count(BROKEN)
            return self._report(str(message.fields["error"]), now, str(message.fields["name"]))
        if message.kind == "fault":
            self._error = str(message.fields["error"])
            self._link.count(BROKEN)
            self._opening_until = 0.0
        elif message.kind == "ready":
            self._error = ""
            self._streams += 1
            self._expect_stream(now)
            self._event("the stream runs again")
        elif message.kind == "reset" and not message.fields["done"]:
            self._event(f"no hardware reset: {message.fields['error'] or 'this camera has none'}")
            if self._ladder.step == steps.RESET:
                self._health.steps -= Counter({steps.RESET: 1})  # it was none
                self._ladder.unavailable(now)
        return None

    def _silence(self, link: CaptureLink, now: float) -> BrokenFrame | None:
        if link.dead:
            why = f"the capture process died ({link.exit_words()})"
            if not self._ladder.active or self._ladder.step != steps.PROCESS:
                self._link.count(DIED)
            self._health.outages += not self._ladder.active
            step = self._ladder.died(now)
            if step is not None:
                self._take(step, why)
        elif self._error:
            why = self._error
            self._climb(why, now)
        elif now - link.last_arrival > self._options.stall_s and (now > self._opening_until or self._ladder.active):
            why = f"no frame for {now - link.last_arrival:.1f} s"
            if not self._ladder.active:
                self._link.count(STALLED)
            self._climb(why, now)
        else:
            return None
        self._good = 0
        return self._report(why, now) if now >= self._next_report else None

    def _expect_stream(self, now: float) -> None:
        self._opening_until = now + max(self._options.stream_s, self._options.stall_s)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _climb(self, why: str, now: float) -> None:
        self._health.outages += not self._ladder.active
        step = self._ladder.due(now)
        if step is not None:
            self._take(step, why)

    def _take(self, step: str, why: str) -> None:
        self._health.steps[step] += 1
        self._event(f"{why}: {step}")
        if step == steps.RETRY:
            return
        self._error = ""
        if step != steps.PROCESS:
            self._link.present.order("restart" if step == steps.STREAM else "reset")
            return
        try:
            self._link.start()
        except EdgeAdError as e:  # no memory for a process now; the ladder comes back to it
            self._event(str(e))

    def _recover(self, now: float) -> None:
        lasted = now - self._ladder.since
        self._health.longest_outage_s = max(self._health.longest_outage_s, lasted)
        self._event(f"recovered after {lasted:.1f} s ({self._ladder.step})")
        self._ladder.recovered(now)
        self._next_report = 0.0

    def _report(self, why: str, now: float, name: str = "") -> BrokenFrame:
        self._next_report = now + self._options.report_s
        step = f" ({self._ladder.step})" if self._ladder.step else ""
        self._health.broken += 1
        self._state(why)
        broken = BrokenFrame(name or f"no-frame-{self._sequence:06d}", self._sequence, self._uri, f"{why}{step}")
        self._sequence += 1
        return broken

    # -- telling ---------------------------------------------------------------------------------------------------

    def _state(self, reason: str) -> None:
        self._health.state, self._health.reason = ("degraded", reason) if reason else ("ok", "")

    def _event(self, text: str) -> None:
        self._health.events.append((time.monotonic() - self._opened, text))
        if self._say is not None:
            self._say(f"camera: {text}")
