"""The checks of single frames, without processes: what is told, and that a healthy camera is never doubted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.frame import Frame
from edge_ad.sensors.capture.watchdog import (
    CLOCK,
    FROZEN,
    HOT,
    LOW_DEPTH,
    MISMATCHED,
    NO_DEPTH,
    REPEATED,
    SIZE,
    FrameChecker,
    WatchOptions,
)

PERIOD = 1 / 30


def frame(number: int, share: float = 0.9, **changes: Any) -> Frame:
    rng = np.random.default_rng([3, number])
    depth = rng.integers(4000, 5000, (48, 64), dtype=np.uint16)
    depth[rng.random(depth.shape) > share] = 0
    at = 50 + number * PERIOD
    fields: dict[str, Any] = {
        "colour": rng.integers(0, 255, (48, 64, 3), dtype=np.uint8),
        "depth": depth,
        "sequence": number,
        "colour_timestamp_s": at,
        "depth_timestamp_s": at,
        "clock": "hardware",
    }
    return Frame(**{**fields, **changes})


def watch(frames: list[Frame], arrivals: list[float] | None = None, **options: Any) -> list[list[str]]:
    """Kinds of faults a frame."""
    checker = FrameChecker(WatchOptions(**options))
    times = arrivals or [10 + i * PERIOD for i in range(len(frames))]
    return [[f.kind for f in checker(each, now)] for each, now in zip(frames, times)]


@settings(max_examples=12)  # 60 frames each; a share below 0.6 of 192 pixels looked at varies by itself too much
@given(st.integers(0, 2**31 - 1), st.floats(0.6, 1.0), st.floats(0, 0.3))
def test_a_healthy_camera_with_jitter_and_skew_is_never_doubted(seed: int, share: float, skew: float) -> None:
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(-0.2, 0.2, 60) * PERIOD
    frames = [
        frame(
            i,
            share,
            colour_timestamp_s=50 + i * PERIOD + jitter[i] + skew * PERIOD,
            depth_timestamp_s=50 + i * PERIOD + jitter[i],
        )
        for i in range(60)
    ]
    assert watch(frames) == [[]] * 60


def test_frames_left_out_by_the_camera_are_no_fault() -> None:
    kept = [0, 1, 2, 5, 6, 11, 12, 13, 30]
    assert watch([frame(i) for i in kept], [10 + i * PERIOD for i in kept]) == [[]] * len(kept)


def test_repeated_pictures_of_one_stream_alone() -> None:
    frames = [frame(i) for i in range(6)]
    frames[5] = replace(frames[5], colour=frames[4].colour, colour_timestamp_s=frames[4].colour_timestamp_s)
    assert watch(frames)[5][0] == REPEATED
    assert MISMATCHED in watch(frames)[5]


@pytest.mark.parametrize("ahead", [-3, -1, 1, 3])
def test_streams_that_are_whole_frames_apart(ahead: int) -> None:
    frames = [frame(i, colour_timestamp_s=50 + (i + ahead) * PERIOD) for i in range(8)]
    assert all(kinds == [MISMATCHED] for kinds in watch(frames)[3:])


def test_clocks() -> None:
    frames = [frame(i) for i in range(4)]
    back = replace(frames[3], colour_timestamp_s=49.0, depth_timestamp_s=49.0)
    assert watch([*frames[:3], back])[3] == [CLOCK]
    jump = replace(frames[3], colour_timestamp_s=60.0, depth_timestamp_s=60.0)
    assert watch([*frames[:3], jump])[3] == [CLOCK]
    nan = replace(frames[3], depth_timestamp_s=float("nan"))
    assert watch([*frames[:3], nan])[3] == [CLOCK]
    late = [10.0, 10.03, 10.06, 15.0]  # our clock went on, the camera's did not: frames of long ago
    assert watch(frames, late)[3] == [CLOCK]


def test_without_a_clock_equal_pictures_are_still_seen() -> None:
    frames = [frame(i, clock="none") for i in range(4)]
    frames.append(replace(frames[3], sequence=4))
    assert watch(frames)[4] == [FROZEN, FROZEN]
    assert watch(frames[:4]) == [[]] * 4


def test_one_frozen_stream_is_seen_beside_one_that_lives() -> None:
    frames = [frame(i) for i in range(5)]
    assert watch([*frames[:4], replace(frames[4], depth=frames[3].depth)])[4] == [FROZEN]
    assert watch([*frames[:4], replace(frames[4], colour=frames[3].colour)], identical=3)[4] == []


@settings(max_examples=25)
@given(st.floats(0.6, 1.0), st.floats(0.0, 1.0))
def test_a_falling_share_of_depth(usual: float, left: float) -> None:
    checker = FrameChecker(WatchOptions())
    for i in range(40):
        assert checker(frame(i, usual), 10 + i * PERIOD) == ()
    known = checker.memory["usual_share"]
    assert known == pytest.approx(usual, abs=0.06)
    kinds = [f.kind for f in checker(frame(40, usual * left), 10 + 40 * PERIOD)]
    now = frame(40, usual * left).depth
    assert now is not None
    share = float((now[::4, ::4] > 0).mean())
    expected = [NO_DEPTH] if share == 0 else [LOW_DEPTH] if share < 0.7 * known else []
    assert kinds == expected


def test_a_slow_decline_is_not_followed() -> None:
    """What is usual was learnt at the start: a lens that gets dirty over weeks is told in the end."""
    frames = [frame(i, 0.9 - 0.001 * i) for i in range(500)]
    assert LOW_DEPTH in watch(frames)[-1]


def test_nan_and_xyz_count_as_no_depth() -> None:
    depth = np.full((48, 64), np.nan, np.float32)
    assert watch([frame(0, depth=depth)]) == [[NO_DEPTH]]
    assert watch([frame(0, depth=None, xyz=np.zeros((48, 64, 3), np.float32))]) == [[NO_DEPTH]]
    assert watch([frame(0, depth=None)]) == [[NO_DEPTH]]


def test_another_size_and_what_an_earlier_checker_knew() -> None:
    first = FrameChecker(WatchOptions())
    for i in range(40):
        first(frame(i), 10 + i * PERIOD)
    second = FrameChecker(WatchOptions(), first.memory)
    assert [f.kind for f in second(frame(0, 0.3), 0.0)] == [LOW_DEPTH]
    small = frame(1, colour=np.zeros((24, 32, 3), np.uint8), depth=np.ones((24, 32), np.uint16))
    assert [f.kind for f in second(small, 0.1)] == [SIZE]


def test_a_new_stream_may_start_its_clock_anew() -> None:
    checker = FrameChecker(WatchOptions())
    for i in range(5):
        checker(frame(100 + i), 10 + i * PERIOD)
    checker.new_stream()
    assert checker(frame(0), 30.0) == ()


@pytest.mark.parametrize(("told", "limit", "kinds"), [(71.0, 70, [HOT]), (70.0, 70, []), (90.0, 0, []), (None, 70, [])])
def test_temperature(told: float | None, limit: float, kinds: list[str]) -> None:
    checker = FrameChecker(WatchOptions(max_temperature_c=limit))
    assert [f.kind for f in checker(frame(0), 0.0, told)] == kinds
    if told is not None:
        inside = frame(1, metadata={"depth_temperature": told, "exposure": 900})
        assert [f.kind for f in checker(inside, PERIOD)] == kinds
