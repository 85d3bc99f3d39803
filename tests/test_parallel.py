"""Order, errors, threads and dead processes of the map over processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.parallel import ONE_THREAD, cores, run_parallel


@dataclass(frozen=True)
class Times:
    """A function that carries something, as workers do."""

    factor: int

    def __call__(self, value: int) -> tuple[int, int, tuple[str | None, ...]]:
        return value * self.factor, os.getpid(), tuple(os.environ.get(n) for n in ONE_THREAD)


def fail(value: int) -> int:
    if value == 2:
        raise InvalidFrame(f"part {value} is broken", "a whole one", "copy it again")
    return value


def die(value: int) -> int:
    if value == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_in_order_in_other_processes_with_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONE_THREAD[0], "7")
    got = list(run_parallel(Times(3), range(9), processes=2))
    assert [g[0] for g in got] == [3 * i for i in range(9)]
    pids = {g[1] for g in got}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert {g[2] for g in got} == {("1", "1", "1")}
    assert os.environ[ONE_THREAD[0]] == "7"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_one_process_is_this_one(count: int) -> None:
    got = list(run_parallel(Times(2), range(count), processes=1))
    assert [g[0] for g in got] == [2 * i for i in range(count)]
    assert {g[1] for g in got} <= {os.getpid()}


@pytest.mark.parametrize("processes", [1, 2])
def test_what_the_function_raises_is_raised_here_as_it_was(processes: int) -> None:
    seen = []
    with pytest.raises(InvalidFrame) as e:
        for value in run_parallel(fail, range(6), processes=processes):
            seen.append(value)
    assert seen == [0, 1]
    assert str(e.value) == "part 2 is broken; expected a whole one; copy it again"
    assert (e.value.found, e.value.remedy) == ("part 2 is broken", "copy it again")


def test_a_process_that_died_is_one_clear_error() -> None:
    with pytest.raises(EdgeAdError, match=r"one of 2 processes died.*--jobs 1"):
        list(run_parallel(die, range(4), processes=2))


def test_stopping_early_ends_the_processes() -> None:
    results = run_parallel(Times(1), range(50), processes=2)
    assert next(results)[0] == 0
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(results)


def test_the_number_of_processes() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    with pytest.raises(EdgeAdError, match="-1 processes"):
        list(run_parallel(fail, [0], processes=-1))


PARENT = """
import os, sys, time
from pathlib import Path
from edge_ad.parallel import run_parallel

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)

if __name__ == "__main__":
    list(run_parallel(work, [sys.argv[1]] * 2, processes=2))
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script, marks = tmp_path / "parent.py", tmp_path / "marks"
    script.write_text(PARENT)
    marks.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(marks)])
    deadline = time.monotonic() + 60
    while len(list(marks.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [int(p.name) for p in marks.iterdir()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(alive(p) for p in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(p) for p in workers)
