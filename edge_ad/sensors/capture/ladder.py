"""The ladder of remedies: retry, restart the stream, reset the hardware, restart the process; then again, with pauses.

A state machine without clocks or cameras of its own: times are given in, steps come out.
"""

from __future__ import annotations

from edge_ad.sensors.capture.watchdog import WatchOptions

RETRY, STREAM, RESET, PROCESS = "retry", "restart stream", "hardware reset", "restart process"
STEPS = (RETRY, STREAM, RESET, PROCESS)


class Ladder:
    """Which step is due. ``active`` from the first :meth:`due` of a trouble to its :meth:`recovered`."""

    def __init__(self, options: WatchOptions) -> None:
        self._options = options
        self._waits = (options.retry_s, options.stream_s, options.reset_s, options.process_s)
        self.active = False
        self.since = 0.0
        self._rung = -1  # the last step taken
        self._next_at = 0.0
        self._rounds = 0
        self._pause_until = float("-inf")
        self._calm_since = float("-inf")

    @property
    def step(self) -> str:
        """The last step taken in this trouble, or the empty string."""
        return STEPS[self._rung] if self.active and self._rung >= 0 else ""

    def due(self, now: float) -> str | None:
        """The step to take now, or None while the last one still has time. Call it while the trouble lasts."""
        if not self.active:
            self._begin(now)
        if now < self._next_at:
            return None
        # After the whole ladder the upper half comes again and again: a hung device outlives a new process.
        self._rung = self._rung + 1 if self._rung + 1 < len(STEPS) else STEPS.index(RESET)
        self._next_at = now + self._waits[self._rung]
        if STEPS[self._rung] == PROCESS:
            pause = self._pause()
            self._pause_until = now + pause
            self._next_at += pause
        return STEPS[self._rung]

    def unavailable(self, now: float) -> None:
        """The step just taken does not exist for this camera: the next one is due at once."""
        self._next_at = now

    def died(self, now: float) -> str | None:
        """Like :meth:`due` when the process itself is gone: only a new one helps."""
        if not self.active:
            self._begin(now)
        self._next_at = max(now, min(self._next_at, self._pause_until))
        self._rung = STEPS.index(RESET)
        return self.due(now)

    def recovered(self, now: float) -> None:
        """The trouble is over."""
        if self.active:
            self.active = False
            self._calm_since = now

    def _begin(self, now: float) -> None:
        self.active, self.since = True, now
        if now - self._calm_since >= self._options.calm_s:
            self._rung, self._rounds, self._next_at = -1, 0, now
        else:  # it came back: the step that helped for a moment was not enough
            self._next_at = max(now, self._pause_until)

    def _pause(self) -> float:
        pause = min(self._options.backoff_max_s, self._options.backoff_s * 2.0 ** min(self._rounds, 30))
        self._rounds += 1
        return pause
