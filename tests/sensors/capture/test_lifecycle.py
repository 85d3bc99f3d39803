"""Nothing is left behind: no process, no held camera, no shared memory, however the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.sensors.capture import WatchedCamera, WatchOptions, is_live
from tests.sensors.capture.faults import FAST, fault, watch

PROGRAM = """
import sys
from edge_ad.sensors.capture import WatchedCamera, WatchOptions
with WatchedCamera(sys.argv[1], WatchOptions(stop_s=0.5)) as camera:
    print(camera.pid, flush=True)
    for number, item in enumerate(camera):
        if number == 5:
            print("running", flush=True)
"""


def gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def shared_memory() -> set[str]:
    folder = Path("/dev/shm")
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGINT, "none"), (signal.SIGTERM, "stall"), (signal.SIGKILL, "none"), (signal.SIGKILL, "stall")],
    ids=lambda v: v if isinstance(v, str) else v.name,
)
def test_a_program_that_ends_takes_its_capture_process_along(number: signal.Signals, kind: str, tmp_path: Path) -> None:
    """Ctrl-C, SIGTERM (without a handler) and SIGKILL; with a camera that delivers and with one that hangs."""
    before = shared_memory()
    uri = fault(kind, tmp_path, at=10)
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, uri], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert program.stdout is not None
    child = int(program.stdout.readline())
    assert program.stdout.readline() == b"running\n"
    if kind == "stall":
        time.sleep(0.2)
    os.kill(program.pid, number)
    program.wait(10)
    assert gone(child), f"the capture process {child} outlived its program"
    program.stdout.close()
    assert not {name for name in shared_memory() - before if "edge" in name}


def test_leaving_the_block_ends_the_process_and_frees_every_descriptor(tmp_path: Path) -> None:
    watch(fault("none", tmp_path), lambda s: len(s.items) > 3)  # imports done
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        seen = watch(fault("none", tmp_path), lambda s: len(s.items) > 3)
        assert gone(seen.pids[0])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_camera_that_does_not_close_is_killed(tmp_path: Path) -> None:
    """A hung camera: its thread sleeps in the driver; here the process does not even take SIGTERM any more."""
    with WatchedCamera(fault("none", tmp_path), FAST) as camera:
        pid = camera.pid
        os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
    assert gone(pid) and time.monotonic() - start < 30  # 3 s on a free machine


def test_the_newest_frame_wins_and_the_others_are_counted(tmp_path: Path) -> None:
    seen = watch(
        fault("none", tmp_path, fps=200, frames=100),
        lambda s: False,
        lossless=False,
        on_item=lambda s, c: time.sleep(0.05),
    )
    assert len(seen.frames) + seen.health.dropped == 100
    assert seen.health.dropped > 30
    assert seen.frames[-1].name >= "fault-000090"  # on a busy box the last few may be among the dropped


def test_lossless_delivers_every_frame_to_a_slow_consumer(tmp_path: Path) -> None:
    seen = watch(fault("none", tmp_path, fps=0, frames=50), lambda s: False, on_item=lambda s, c: time.sleep(0.002))
    assert [f.name for f in seen.frames] == [f"fault-{i:06d}" for i in range(50)]


def test_stop_ends_a_stream_that_stalls(tmp_path: Path) -> None:
    start = time.monotonic()
    camera = WatchedCamera(fault("stall", tmp_path, at=2), FAST, stop=lambda: time.monotonic() - start > 1.5)
    with camera:
        count = sum(1 for _ in camera)
    assert count >= 3 and time.monotonic() - start < 30  # 1.5 s on a free machine


@pytest.mark.parametrize(
    ("uri", "live"),
    [
        ("fault:none", True),
        ("folder:parts", False),
        ("synthetic:gear", False),
        ("belt:gear", False),
        ("realsense:", True),
        ("realsense:0123456", True),
        ("realsense:line.db3", False),
        ("realsense:/data/A.BAG", False),
        ("realsense:simulated", False),
        ("opencv:0", True),
        ("opencv:film.mp4", False),
        ("mcap:line.mcap", False),
    ],
)
def test_live_cameras_run_under_the_watchdog_and_recordings_do_not(uri: str, live: bool) -> None:
    assert is_live(uri) is live


@pytest.mark.parametrize("field", ["stall_s", "identical", "heal_frames", "keep_share", "retry_s"])
def test_watch_options_are_checked(field: str) -> None:
    value = 1.5 if field == "keep_share" else -1 if field == "retry_s" else 0
    with pytest.raises(EdgeAdError, match=field):
        WatchOptions(**{field: value})
