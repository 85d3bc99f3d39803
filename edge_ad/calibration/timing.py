"""How fast one operating point is on this box: milliseconds a frame, frames a second, memory; in a fresh process."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.data.dataset import Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Frame
from edge_ad.parallel import cores, end_with_parent


@dataclass(frozen=True)
class Timing:
    """Picklable job of one timing. frames : timed one after the other, and as many again in throughput mode.

    gated : time even in a process that had to ask the golden frames, whose memory holds the reference's sessions too.
    """

    path: Path
    point: OperatingPoint
    items: tuple[Item, ...]
    frames: int
    gated: bool = False


@dataclass(frozen=True)
class Timed:
    """p50_ms, p90_ms : one frame in flight, all threads. per_second : frames a second in throughput mode, from memory.
    peak_mb : of the process with one detector."""

    p50_ms: float
    p90_ms: float
    per_second: float
    peak_mb: float


def time_afresh(job: Timing) -> Timed:
    """Time one point in a process of its own, which has not asked the golden frames; raises EdgeAdError."""
    found = in_own_process(time_point, job) or in_own_process(time_point, replace(job, gated=True))
    assert found is not None
    return found


def time_point(job: Timing) -> Timed | None:
    """Time one point in this process; the golden frames decide about it first. None: that they did, and no more."""
    from edge_ad.engines.gate import ensure
    from edge_ad.runtime.detector import Detector
    from edge_ad.runtime.profiling.memory import peak_mb

    point = job.point
    view = Bundle.open(job.path, verify=False).as_variant(point.variant, point.stride)
    detector = Detector(view, point.backend, point.precision, cores(), need_threshold=False)
    if ensure(detector, point.backend) is not None and not job.gated:
        return None
    frames = []
    for item in job.items:
        try:
            frames.append(item.frame())
        except InvalidFrame:
            continue
    if not frames:
        raise EdgeAdError("none of the frames to time could be read", "at least one")
    for frame in frames[:2]:
        detector(frame)
    times = [detector(frames[i % len(frames)]).times_ms["total"] for i in range(job.frames)]
    p50, p90 = np.percentile(times, (50, 90))
    peak = peak_mb()
    if detector.concurrent:  # in throughput mode each frame has a thread of its own
        detector = Detector(view, point.backend, point.precision, 1, need_threshold=False)
    return Timed(float(p50), float(p90), frames_per_second(detector, frames, job.frames), peak)


def frames_per_second(detector: Callable[[Frame], object], frames: Sequence[Frame], count: int) -> float:
    """What ``edge-ad run --throughput`` reaches with ``count`` frames that cost nothing to read."""
    from edge_ad.runtime.pipeline import Pipeline, plan

    for warm in (True, False):
        start = time.perf_counter()
        many = 2 * cores() if warm else count
        with Pipeline(islice(cycle(frames), many), plan(detector, "throughput")) as pipeline:  # type: ignore[arg-type]
            delivered = sum(1 for _ in pipeline)
    return delivered / (time.perf_counter() - start)


def in_own_process(function: Callable[[Timing], Timed | None], job: Timing) -> Timed | None:
    """``function(job)`` in a fresh process, whose memory holds nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            return pool.submit(function, job).result()
        except BrokenProcessPool:
            raise EdgeAdError("the process died", "it to end well", "free some memory") from None
