"""Frames through the stages of a detector on several threads, results in the order of the frames.

Capture runs on a thread of its own, so that the camera never waits for the networks. Then come the stages, each with a
number of workers, and bounded queues between them; the caller's thread takes the results (and writes the outputs).

``throughput`` : whole frames on one worker a core, each with one thread of arithmetic: no stage can set the pace, and
    it goes on with the number of cores (``benchmarks/pipeline_throughput.py`` measures it beside a thread a stage). A
    detector that takes one caller at a time (TensorRT) gets a thread a stage instead.
``latency`` : one frame in flight, with all threads of arithmetic; the next one is taken when its result was delivered.

Where frames are dropped (live sources), the newest wins: a frame that waits is replaced by a newer one and counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame, Result
from edge_ad.parallel import cores
from edge_ad.runtime.channel import Channel, Closed

MODES = ("throughput", "latency")
POLL_S = 0.05
PATIENCE_S = 2.0
"""How long the end of a run waits for a camera that is still asked for a frame."""


class Inspector(Protocol):
    """What the pipeline drives: a detector."""

    def __call__(self, frame: Frame) -> Result:
        """Inspect one frame."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it does to an item, and on how many threads at once."""

    name: str
    work: Callable[[Any], Any]
    workers: int = 1


@dataclass(frozen=True)
class Delivery:
    """One frame and its result. ``frame`` may be what the source gives for a frame that it could not read; then
    ``result`` is None. latency_ms : from the source's hand to the end of the last stage."""

    frame: Any
    result: Result | None
    latency_ms: float


@dataclass(frozen=True)
class Counts:
    """taken : frames that the source gave. dropped : replaced by newer ones while they waited. delivered : results."""

    taken: int
    dropped: int
    delivered: int


@dataclass
class _Item:
    ticket: int
    frame: Any
    taken_at: float
    value: Any
    done_at: float = 0.0


def plan(detector: Inspector, mode: str, workers: int = 0) -> tuple[Stage, ...]:
    """The stages for a mode. ``workers``: frames at once in ``throughput`` (0: one a core).

    Raises
    ------
    EdgeAdError
        An unknown mode.
    """
    if mode not in MODES:
        raise EdgeAdError(f"pipeline mode '{mode}'", f"one of {', '.join(MODES)}")
    if mode == "latency":
        return (Stage("inspect", detector),)
    if getattr(detector, "concurrent", False):
        return (Stage("inspect", detector, workers or cores()),)
    return stages(detector)


def stages(detector: Any) -> tuple[Stage, ...]:
    """A thread a stage, for a detector that has the four stages; else one that does it all."""
    names = ("prepare", "encode", "score", "finish")
    if not all(callable(getattr(detector, n, None)) for n in names):
        return (Stage("inspect", detector),)
    return tuple(Stage(n, getattr(detector, n)) for n in names)


def threads_for(mode: str, workers: int = 0) -> int:
    """Threads of arithmetic that the backend should use, so that the cores are busy and not oversubscribed."""
    return max(1, cores() // (workers or cores())) if mode == "throughput" else cores()


class Pipeline:
    """Iterate it once, inside ``with``: a :class:`Delivery` a frame, in order.

    Parameters
    ----------
    source : frames, and objects of any other type for frames that could not be read; these pass by.
    stages : from :func:`plan`. drop : the newest frame wins when the stages are slow; else the source waits.
    in_flight : frames between the source and the delivery, at most; 0: enough to keep every worker busy.
    stop : asked often; once it is true no new frame is taken and those in flight are delivered.

    Raises
    ------
    What the source or a stage raises is raised by the iteration, once the threads have been told to end.
    """

    def __init__(
        self,
        source: Iterable[Any],
        stages: Sequence[Stage],
        *,
        drop: bool = False,
        in_flight: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source, self._stages, self._stop = source, tuple(stages), stop
        workers = sum(s.workers for s in self._stages)
        self._room = threading.Semaphore(in_flight or 2 * workers)
        # With drops a frame must not grow old in a queue; without, one waits so that no worker does.
        self._inbox: Channel[_Item] = Channel(1 if drop else max(1, workers), newest_wins=drop)
        self._queues: list[Channel[_Item]] = [Channel(max(2, s.workers)) for s in self._stages]
        self._threads: list[threading.Thread] = []
        self._left = [s.workers for s in self._stages]
        self._lock = threading.Lock()
        self._take = threading.Lock()
        self._error: BaseException | None = None
        self._ended = False
        self._tickets = self._taken = self._delivered = 0

    @property
    def counts(self) -> Counts:
        """So far."""
        return Counts(self._taken, self._inbox.dropped, self._delivered)

    def __enter__(self) -> Pipeline:
        """Start the threads."""
        jobs: list[tuple[str, Callable[[], None]]] = [("capture", self._capture)]
        for i, stage in enumerate(self._stages):
            jobs += [(stage.name, lambda i=i: self._run(i)) for _ in range(stage.workers)]  # type: ignore[misc]
        self._threads = [threading.Thread(target=job, name=f"edge-ad {name}", daemon=True) for name, job in jobs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads. What is in flight is finished and forgotten; a camera that hangs is not waited for long."""
        self._end()
        for channel in (self._inbox, *self._queues):
            channel.discard()
        for thread in self._threads[1:]:
            thread.join()
        self._threads[0].join(PATIENCE_S)

    def _end(self) -> None:
        self._ended = True
        self._inbox.close()
        for _ in range(sum(s.workers for s in self._stages)):
            self._room.release()  # whoever waits for room sees the end instead

    def _capture(self) -> None:
        try:
            for frame in self._source:
                self._taken += 1
                self._inbox.put(_Item(0, frame, time.perf_counter(), None))
                if self._ended:
                    break
        except Closed:
            self._taken -= 1  # the run ended while this frame waited at the door
        except BaseException as e:
            self._fail(e)
        finally:
            self._inbox.close()

    def _next(self, i: int) -> _Item:
        if i > 0:
            return self._queues[i - 1].get()
        with self._take:  # a ticket for each frame in the order in which they are taken
            self._room.acquire()
            try:
                item = self._inbox.get()
            except Closed:
                self._room.release()  # for the next worker, which then sees the end as well
                raise
            item.ticket, item.value = self._tickets, item.frame
            self._tickets += 1
            return item

    def _run(self, i: int) -> None:
        stage = self._stages[i]
        try:
            while True:
                item = self._next(i)
                if isinstance(item.frame, Frame):
                    item.value = stage.work(item.value)
                item.done_at = time.perf_counter()
                self._queues[i].put(item)
        except Closed:
            pass
        except BaseException as e:
            self._fail(e)
        with self._lock:
            self._left[i] -= 1
            last = self._left[i] == 0
        if last:
            self._queues[i].close()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._end()
        for channel in self._queues:
            channel.discard()

    def __iter__(self) -> Iterator[Delivery]:
        """Results in the order of the frames."""
        waiting: dict[int, _Item] = {}
        while True:
            if self._stop() and not self._ended:
                self._end()
            try:
                item = self._queues[-1].get(POLL_S)
            except TimeoutError:
                continue
            except Closed:
                break
            waiting[item.ticket] = item
            while self._delivered in waiting:
                done = waiting.pop(self._delivered)
                self._delivered += 1
                read = isinstance(done.frame, Frame)
                yield Delivery(done.frame, done.value if read else None, (done.done_at - done.taken_at) * 1e3)
                self._room.release()
        if self._error is not None:
            raise self._error
