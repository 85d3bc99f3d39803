"""Ctrl-C and SIGTERM as a wish to end: what is in work is finished, and the summary printed."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class UntilSignal:
    """Called, it says whether one of the signals came while its block ran. Outside of the main thread none does."""

    def __init__(self) -> None:
        self._came = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether to end."""
        return self._came

    def __enter__(self) -> UntilSignal:
        """Take the signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._take) for s in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = True
