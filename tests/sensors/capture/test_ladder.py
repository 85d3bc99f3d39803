"""The ladder by itself: every order of steps and pauses, with times that are given in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_ad.sensors.capture.ladder import PROCESS, RESET, RETRY, STEPS, STREAM, Ladder
from edge_ad.sensors.capture.watchdog import WatchOptions

OPTIONS = WatchOptions(retry_s=1, stream_s=5, reset_s=15, process_s=10, backoff_s=2, backoff_max_s=20, calm_s=30)


def climb(ladder: Ladder, start: float, seconds: float, step: float = 0.5) -> list[tuple[float, str]]:
    """(time since the start, step) while the trouble lasts."""
    taken = []
    for i in range(int(seconds / step) + 1):
        due = ladder.due(start + i * step)
        if due is not None:
            taken.append((i * step, due))
    return taken


def test_each_step_has_its_time_and_the_pauses_double_up_to_a_limit() -> None:
    taken = climb(Ladder(OPTIONS), 100.0, 200)
    assert taken[:4] == [(0, RETRY), (1, STREAM), (6, RESET), (21, PROCESS)]
    assert [s for _, s in taken[4:]] == [RESET, PROCESS] * ((len(taken) - 4) // 2) + [RESET] * (len(taken) % 2)
    pauses = [b - a - 10 for (a, s), (b, _) in zip(taken, taken[1:]) if s == PROCESS]
    assert pauses[:5] == [2, 4, 8, 16, 20]


def test_a_step_that_does_not_exist_gives_way_at_once() -> None:
    ladder = Ladder(OPTIONS)
    assert [ladder.due(0), ladder.due(1), ladder.due(6)] == [RETRY, STREAM, RESET]
    ladder.unavailable(6.1)
    assert ladder.due(6.1) == PROCESS


def test_a_trouble_that_comes_back_soon_goes_on_and_one_that_comes_late_starts_anew() -> None:
    ladder = Ladder(OPTIONS)
    assert [ladder.due(0), ladder.due(1)] == [RETRY, STREAM]
    ladder.recovered(2)
    assert not ladder.active and ladder.step == ""
    assert ladder.due(10) == RESET
    ladder.recovered(12)
    assert ladder.due(60) == RETRY


def test_a_dead_process_is_replaced_at_once_the_first_time_and_with_pauses_after() -> None:
    ladder = Ladder(OPTIONS)
    assert ladder.died(0) == PROCESS
    assert ladder.died(0.5) is None
    assert ladder.died(2.0) == PROCESS
    assert ladder.died(3.0) is None
    assert ladder.died(6.0) == PROCESS
    ladder.recovered(7)
    ladder.recovered(7)
    assert ladder.died(60) == PROCESS


@given(st.lists(st.tuples(st.floats(0.01, 20), st.sampled_from(["ill", "dead", "well", "none"])), max_size=60))
def test_whatever_happens_a_step_never_comes_before_its_time(events: list[tuple[float, str]]) -> None:
    ladder, now, last = Ladder(OPTIONS), 0.0, -1.0
    for wait, what in events:
        now += wait
        if what == "well":
            ladder.recovered(now)
            assert ladder.step == ""
        elif what == "none":
            if ladder.active:
                ladder.unavailable(now)
        else:
            step = ladder.died(now) if what == "dead" else ladder.due(now)
            assert ladder.active and (step is None or step in STEPS)
            if step is not None:
                assert now > last and ladder.step == step
                assert what != "dead" or step == PROCESS
                last = now
