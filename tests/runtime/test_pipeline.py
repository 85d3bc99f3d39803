"""The pipeline: order, drops, errors, draining, and the same results as one frame after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame, Result
from edge_ad.runtime.channel import Channel, Closed
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.pipeline import Delivery, Pipeline, Stage, plan, stages, threads_for
from edge_ad.sensors import BrokenFrame
from tests.training.tiny import make_frame

NAN = float("nan")


def frames(count: int) -> list[Frame]:
    picture = np.zeros((2, 2, 3), np.uint8)
    return [Frame(picture, xyz=np.zeros((2, 2, 3), np.float32), sequence=i, name=str(i)) for i in range(count)]


def answer(frame: Frame) -> Result:
    return Result("normal", "ok", (), "cap", float(frame.sequence), NAN, sequence=frame.sequence, name=frame.name)


def run(source: Any, parts: tuple[Stage, ...], **options: Any) -> list[Delivery]:
    with Pipeline(source, parts, **options) as pipeline:
        return list(pipeline)


def alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("edge-ad")]


@settings(max_examples=15)
@given(
    st.integers(0, 25), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 3), st.integers(0, 2**31)
)
def test_every_frame_once_in_order_whatever_the_stages_take(
    count: int, workers: list[int], in_flight: int, seed: int
) -> None:
    pauses = np.random.default_rng(seed).random((len(workers), max(1, count))) * 0.003

    def work(i: int) -> Stage:
        def step(value: Any) -> Any:
            frame = value if isinstance(value, Frame) else value[0]
            time.sleep(pauses[i, frame.sequence])
            return answer(frame) if i == len(workers) - 1 else (frame,)

        return Stage(f"s{i}", step, workers[i])

    got = run(frames(count), tuple(work(i) for i in range(len(workers))), in_flight=in_flight)
    assert [d.frame.sequence for d in got] == list(range(count))
    assert [d.result.score for d in got if d.result is not None] == list(range(count))
    assert alive() == []


def test_recorded_sources_lose_nothing_and_latency_keeps_one_in_flight() -> None:
    busy, most = 0, 0
    lock = threading.Lock()

    def slow(frame: Frame) -> Result:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.005)
        return answer(frame)

    with Pipeline(frames(8), plan(slow, "latency"), in_flight=1) as pipeline:
        for delivery in pipeline:
            time.sleep(0.003)  # the consumer writes; no other frame may be in work meanwhile
            with lock:
                busy -= 1
            assert delivery.latency_ms >= 5
        counts = pipeline.counts
    assert most == 1 and (counts.taken, counts.dropped, counts.delivered) == (8, 0, 8)


def test_a_live_source_is_never_kept_waiting_and_the_newest_frame_wins() -> None:
    gate = threading.Event()

    def source() -> Iterator[Frame]:
        for frame in frames(20):
            yield frame
            if frame.sequence == 0:
                started.wait(5)
        gate.set()

    started = threading.Event()

    def slow(frame: Frame) -> Result:
        started.set()
        assert gate.wait(5), "the source was kept waiting"
        return answer(frame)

    with Pipeline(source(), plan(slow, "latency"), drop=True, in_flight=1) as pipeline:
        got = [d.frame.sequence for d in pipeline]
        counts = pipeline.counts
    assert got == [0, 19]
    assert (counts.taken, counts.dropped, counts.delivered) == (20, 18, 2)


@pytest.mark.parametrize("where", ["source", "stage", "late stage"])
def test_an_error_anywhere_ends_the_run_and_all_its_threads(where: str) -> None:
    def source() -> Iterator[Frame]:
        for frame in frames(100):
            if where == "source" and frame.sequence == 5:
                raise EdgeAdError("the cable is out")
            yield frame

    def fail(at: str) -> Any:
        def step(frame: Any) -> Any:
            if where == at and frame.sequence == 5:
                raise EdgeAdError("the cable is out")
            return frame if at == "stage" else answer(frame)

        return step

    parts = (Stage("a", fail("stage"), 2), Stage("b", fail("late stage"), 2))
    with pytest.raises(EdgeAdError, match="the cable is out"):
        run(source(), parts)
    assert alive() == []


def test_stop_delivers_what_is_in_flight_and_takes_no_more() -> None:
    stopped = threading.Event()
    begun: list[int] = []

    def slow(frame: Frame) -> Result:
        begun.append(frame.sequence)
        time.sleep(0.01)
        return answer(frame)

    got = []
    with Pipeline(frames(1000), (Stage("a", slow, 2),), stop=stopped.is_set) as pipeline:
        for delivery in pipeline:
            got.append(delivery.frame.sequence)
            if len(got) == 5:
                stopped.set()
    assert got == list(range(len(got))) and 5 <= len(got) < 50
    assert sorted(begun) == got  # nothing was begun and not delivered


def test_leaving_early_ends_the_threads_and_a_hung_camera_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge_ad.runtime.pipeline.PATIENCE_S", 0.1)
    release = threading.Event()

    def hung() -> Iterator[Frame]:
        yield from frames(3)
        release.wait(30)

    start = time.monotonic()
    with Pipeline(hung(), plan(answer, "latency"), in_flight=1) as pipeline:
        for delivery in pipeline:
            if delivery.frame.sequence == 2:
                break
    assert time.monotonic() - start < 5
    assert alive() == ["edge-ad capture"]
    release.set()


def test_stop_while_the_camera_hangs_ends_the_iteration() -> None:
    release, stopped = threading.Event(), threading.Event()

    def hung() -> Iterator[Frame]:
        yield from frames(2)
        stopped.set()
        release.wait(3)

    start = time.monotonic()
    with Pipeline(hung(), plan(answer, "latency"), in_flight=1, stop=stopped.is_set) as pipeline:
        got = [d.frame.sequence for d in pipeline]
        took = time.monotonic() - start
        release.set()
    assert got == [0, 1] and took < 2


def test_frames_that_could_not_be_read_pass_by_in_their_place() -> None:
    good = frames(4)
    source = [good[0], BrokenFrame("x", 1, "file", "is no image"), good[2], good[3]]
    got = run(source, (Stage("a", lambda f: f, 2), Stage("b", answer, 2)))
    assert [type(d.frame).__name__ for d in got] == ["Frame", "BrokenFrame", "Frame", "Frame"]
    assert [d.result is None for d in got] == [False, True, False, False]


def test_a_channel_waits_drops_and_closes() -> None:
    newest: Channel[int] = Channel(2, newest_wins=True)
    for i in range(5):
        newest.put(i)
    assert (newest.get(), newest.get(), newest.dropped) == (3, 4, 3)
    with pytest.raises(TimeoutError):
        newest.get(0.01)
    plain: Channel[int] = Channel(1)
    plain.put(1)
    waiting = threading.Thread(target=lambda: plain.put(2))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert plain.get() == 1 and plain.get(1) == 2
    waiting.join(1)
    plain.put(3)
    plain.close()
    assert plain.get() == 3
    for call in (plain.get, lambda: plain.put(4)):
        with pytest.raises(Closed):
            call()


def test_plans_follow_the_detector_and_unknown_modes_are_refused() -> None:
    class OneCaller:
        concurrent = False

        def __call__(self, frame: Frame) -> Result:
            return answer(frame)

        def prepare(self, frame: Frame) -> Frame:
            return frame

        encode = score = prepare
        finish = __call__

    assert [s.name for s in plan(OneCaller(), "throughput")] == ["prepare", "encode", "score", "finish"]
    assert [s.workers for s in plan(OneCaller(), "throughput")] == [1, 1, 1, 1]
    assert [s.name for s in plan(answer, "throughput", 4)] == ["inspect"]  # a callable alone takes one caller
    assert plan(answer, "throughput", 4)[0].workers == 1
    assert threads_for("throughput", 1) >= 1 and threads_for("latency") >= threads_for("throughput")
    with pytest.raises(EdgeAdError, match="one of throughput, latency"):
        plan(answer, "fast")


@pytest.mark.parametrize("how", ["latency", "throughput", "stages"])
def test_results_are_those_of_one_frame_after_the_other(tiny_export: Path, how: str) -> None:
    detector = Detector(Bundle.open(tiny_export), threads=1, need_threshold=False)
    assert detector.concurrent
    source = [replace(make_frame(c, i), sequence=i) for i in range(4) for c in ("cookie", "hex_nut")]
    source.append(make_frame("cookie", -1))  # no part in view
    parts = stages(detector) if how == "stages" else plan(detector, how, 2)
    got = run(source, parts, in_flight=1 if how == "latency" else 0)
    for frame, delivery in zip(source, got, strict=True):
        alone, here = detector(frame), delivery.result
        assert here is not None
        assert (here.decision, here.reasons, here.class_name) == (alone.decision, alone.reasons, alone.class_name)
        for name in ("map", "mask", "sample_map", "lost"):
            a, b = getattr(alone, name), getattr(here, name)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)
        assert here.regions == alone.regions
        assert set(here.times_ms) == set(alone.times_ms)
