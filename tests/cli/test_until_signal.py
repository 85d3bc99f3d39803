"""Ctrl-C and SIGTERM as a wish to end."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from edge_ad.cli.until_signal import UntilSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_its_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    ended = UntilSignal()
    with ended:
        assert not ended()
        os.kill(os.getpid(), number)
        assert ended()
    assert ended() and signal.getsignal(number) is before


def test_outside_of_the_main_thread_the_signals_stay_as_they_are() -> None:
    seen: list[object] = []

    def work() -> None:
        with UntilSignal() as ended:
            seen.extend((signal.getsignal(signal.SIGTERM), ended()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM), False]
