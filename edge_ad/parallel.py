"""A map over processes, each with one thread of arithmetic. Lean."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from edge_ad.errors import EdgeAdError

T = TypeVar("T")
R = TypeVar("R")
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_worker: Callable[[Any], Any] | None = None


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def end_with_parent() -> None:
    """Let this worker process end when the one that started it is gone, even by SIGKILL."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(function: Callable[[Any], Any]) -> None:
    global _worker
    _worker = function
    end_with_parent()


def _call(argument: Any) -> Any:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    return _worker(argument)


def run_parallel(function: Callable[[T], R], arguments: Sequence[T], *, processes: int = 0) -> Iterator[R]:
    """``map(function, arguments)`` in order, over spawned processes; in this process where ``processes`` is 1.

    Parameters
    ----------
    function : picklable; it is sent once, so it may carry what every call needs. processes : 0: one a core, at most 8.

    Raises
    ------
    EdgeAdError
        A negative number of processes, or one that died (the system kills what takes too much memory).
        What ``function`` raises is raised here; the rest is then cancelled.
    """
    if processes < 0:
        raise EdgeAdError(f"{processes} processes", "0 (one a core) or more")
    processes = min(processes or min(cores(), 8), len(arguments))
    # A program fed on standard input cannot be imported again by a spawned process.
    if processes < 2 or getattr(sys.modules["__main__"], "__file__", "") == "<stdin>":
        yield from map(function, arguments)
        return
    saved = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(function,)) as pool:
            try:
                yield from pool.map(_call, arguments, chunksize=1)
            except BrokenProcessPool:
                raise EdgeAdError(
                    f"one of {processes} processes died",
                    "all of them to end well",
                    "free some memory or use fewer processes, e.g. --jobs 1",
                ) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
