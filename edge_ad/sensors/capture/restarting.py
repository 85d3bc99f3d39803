"""A capture process that is replaced by a new one when it must be, while its counts go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from edge_ad.errors import EdgeAdError
from edge_ad.sensors.capture.link import CaptureLink, Message
from edge_ad.sensors.capture.watchdog import WatchOptions

POLL_S = 0.05


class RestartingLink:
    """The link to the present capture process of ``uri``, and what the earlier ones have counted.

    lossless : as in :class:`edge_ad.sensors.capture.link.CaptureLink`. described : the name of the camera, once it
    is open.
    """

    def __init__(self, uri: str, options: WatchOptions, *, lossless: bool) -> None:
        self._uri, self._options, self._lossless = uri, options, lossless
        self._link: CaptureLink | None = None
        self._dropped = 0
        self._faults: Counter[str] = Counter()
        self._temperature_c: float | None = None  # of the last process that has ended
        self.described = uri

    @property
    def present(self) -> CaptureLink:
        """The present process; raises EdgeAdError where there is none."""
        if self._link is None:
            raise EdgeAdError(f"{self._uri} is not open", "a camera inside its with block")
        return self._link

    @property
    def pid(self) -> int:
        """Process id of the capture process (0: none)."""
        return self._link.pid if self._link is not None else 0

    @property
    def dropped(self) -> int:
        """Frames that gave way to newer ones, over all processes."""
        running = self._running
        return self._dropped + (running.dropped if running is not None else 0)

    @property
    def faults(self) -> Counter[str]:
        """Faults by kind, over all processes."""
        running = self._running
        return self._faults + (running.faults if running is not None else Counter())

    @property
    def temperature_c(self) -> float | None:
        """Degrees Celsius of the camera with its last frame, where it tells."""
        running = self._running
        return self._temperature_c if running is None else running.temperature_c

    def count(self, kind: str) -> None:
        """Count a fault that the process cannot count itself."""
        self._faults[kind] += 1

    def start(self) -> None:
        """A new process; an earlier one is ended first and hands on what its checker remembers.

        Raises EdgeAdError where no process can be started.
        """
        memory = None
        if self._link is not None:
            self._retire(self._link)
            memory = self._link.memory
        self._link = CaptureLink(self._uri, self._options, lossless=self._lossless, memory=memory)

    def close(self) -> None:
        """End the process; it never outlives this."""
        if self._link is not None:
            self._retire(self._link)
            self._link = None

    def await_open(self, until: float, stop: Callable[[], bool]) -> None:
        """Wait until the camera is open, at most to ``until`` (``time.monotonic``), or until ``stop`` says so.

        Raises EdgeAdError when it cannot be opened, when its process ends, and when the time is over.
        """
        link = self.present
        while time.monotonic() < until and not stop():
            item = link.take(POLL_S)
            if isinstance(item, Message) and item.kind == "fault":
                raise EdgeAdError(str(item.fields["error"]))
            if isinstance(item, Message) and item.kind == "ready":
                self.described = str(item.fields["describe"])
                return
            if item is None and link.dead:
                raise EdgeAdError(f"the capture process of {self._uri} ended at its start ({link.exit_words()})")
        if not stop():
            raise EdgeAdError(f"{self._uri} did not open within {self._options.open_s:g} s", "", "reconnect the camera")

    @property
    def _running(self) -> CaptureLink | None:
        return None if self._link is None or self._link.closed else self._link

    def _retire(self, link: CaptureLink) -> None:
        if not link.closed:
            link.close()
            self._dropped += link.dropped
            self._faults += link.faults
            self._temperature_c = link.temperature_c
