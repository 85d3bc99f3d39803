"""The emulated driver finds what it is there to find; a checker that finds nothing would prove nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_ad.frame import Frame
from edge_ad.runtime.device.buffers import Arena, Input, Output
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.kernels.launch import Launch
from tests.emulator.emulate import needs_compiler
from tests.runtime.device.emulated import EmulatedDriver
from tests.runtime.device.memory import Race, UseAfterFree
from tests.runtime.device.networks import images

pytestmark = needs_compiler


def setup() -> Any:
    driver = EmulatedDriver()
    driver.depth = 1
    a, b = driver.stream(), driver.stream()
    kernels = KernelSet(driver, images())
    x, y = (driver.allocate(4 * 256) for _ in range(2))
    half = driver.allocate(2 * 256)
    flag = driver.allocate(4)
    return SimpleNamespace(driver=driver, a=a, b=b, kernels=kernels, x=x, y=y, half=half, flag=flag)


def pack(s: Any, source: Any, stream: Any) -> None:
    """Reads ``source``, writes ``half``."""
    s.kernels.run("score_pack", Launch((1, 1), 256), stream, source, np.int64(256), s.half, s.flag)


def written_then_read(s: Any) -> None:
    """One stream writes, another reads after an event."""
    event = s.driver.event()
    s.driver.zero(s.x, 1024, s.a)
    s.driver.record(event, s.a)
    s.driver.wait(s.b, event)
    pack(s, s.x, s.b)


def test_a_missing_wait_is_a_race() -> None:
    s = setup()
    s.driver.zero(s.x, 1024, s.a)
    with pytest.raises(Race, match="score_pack .*uses what zeroing"):
        pack(s, s.x, s.b)


def test_an_event_orders_them() -> None:
    s = setup()
    written_then_read(s)
    assert not s.half.bytes.any()


def test_an_event_that_was_recorded_too_early_does_not() -> None:
    s = setup()
    event = s.driver.event()
    s.driver.record(event, s.a)
    s.driver.zero(s.x, 1024, s.a)
    s.driver.wait(s.b, event)
    with pytest.raises(Race):
        pack(s, s.x, s.b)


def test_overwriting_what_another_stream_still_reads_is_a_race() -> None:
    s = setup()
    written_then_read(s)
    with pytest.raises(Race, match="overwrites what score_pack"):
        s.driver.zero(s.x, 1024, s.a)


def test_the_host_must_wait_before_it_reads() -> None:
    s = setup()
    arena = Arena(s.driver)
    out = Output(arena, s.x, (256,), np.float32)
    s.driver.zero(s.x, 1024, s.a)
    out.fetch(s.a)
    with pytest.raises(Race, match="the host"):
        out.read()
    s.driver.synchronize(s.a)
    assert not out.read().any()


@pytest.mark.parametrize("integrated", [False, True])
def test_the_host_must_not_write_an_input_that_is_in_use(integrated: bool) -> None:
    s = setup()
    s.driver.integrated = integrated
    given = Input(Arena(s.driver), (256,), np.float32)
    given.array[:] = 1
    given.send(s.a)
    pack(s, given.memory, s.a)
    with pytest.raises(Race, match="the host"):
        given.array[:] = 2
    s.driver.synchronize(s.a)
    given.array[:] = 2


def test_memory_is_not_used_after_it_was_freed_nor_freed_while_in_use() -> None:
    s = setup()
    s.driver.zero(s.x, 1024, s.a)
    with pytest.raises(Race, match="free"):
        s.x.free()
    s.driver.synchronize(s.a)
    s.x.free()
    with pytest.raises(UseAfterFree):
        pack(s, s.x, s.a)
    with pytest.raises(UseAfterFree, match="twice"):
        s.x.free()


def test_wrong_arguments_are_noticed() -> None:
    s = setup()
    with pytest.raises(AssertionError, match="i8 is given"):
        s.kernels.run("score_pack", Launch((1, 1), 256), s.a, s.x, 256, s.half, s.flag)
    with pytest.raises(UseAfterFree, match="no allocation"):
        pack(s, SimpleNamespace(address=12345), s.a)


def test_a_graph_runs_when_it_is_launched() -> None:
    s = setup()
    s.kernels.load("score_pack")
    graph = s.driver.record_graph(s.a, lambda: pack(s, s.x, s.a))
    assert (s.half.bytes == 0xA5).all()
    s.driver.zero(s.x, 1024, s.a)
    graph.launch(s.a)
    assert not s.half.bytes.any()


@pytest.mark.parametrize("event", ["cut", "joined"])
def test_without_one_of_its_events_the_pipeline_is_caught(event: str, device: Any, frames: list[Frame]) -> None:
    detector = device()
    driver = detector.driver
    wait = driver.wait

    def forget(stream: Any, which: Any) -> None:
        if which not in [getattr(slot, event) for slot in detector.device._slots]:
            wait(stream, which)

    driver.wait = forget
    with pytest.raises(Race):
        detector(frames[0])
