"""Soak of the capture process: 20,000 injected frames, none lost unless counted, and nothing grows.

Two phases of N frames each, faster than real time: `lossless` (every frame must arrive) and `live` (the newest wins;
delivered + counted drops must be N, in order). Then R restarts of the process by SIGKILL. Memory, file descriptors and
processes of parent and child are read from /proc after a tenth of the frames and at the end.

    python benchmarks/capture_soak.py --frames 20000 --restarts 10
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from edge_ad.frame import Frame
from edge_ad.sensors import BrokenFrame
from edge_ad.sensors.capture import WatchedCamera, WatchOptions


def resident_kb(pid: int) -> int:
    """Resident memory of a process, shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def state(child: int) -> dict[str, int]:
    """Memory, descriptors, threads and children, now."""
    me = os.getpid()
    children = Path(f"/proc/{me}/task/{me}/children").read_text(encoding="utf-8").split()
    return {
        "parent_kb": resident_kb(me),
        "child_kb": resident_kb(child) if child else 0,
        "parent_fds": len(os.listdir(f"/proc/{me}/fd")),
        "child_fds": len(os.listdir(f"/proc/{child}/fd")) if child else 0,
        "threads": len(os.listdir(f"/proc/{me}/task")),
        "children": len(children),
    }


def phase(frames: int, size: tuple[int, int], lossless: bool) -> dict[str, object]:
    """All frames of one camera; what was lost, and what grew."""
    uri = f"fault:none?fps=0&frames={frames}&width={size[0]}&height={size[1]}"
    numbers: list[int] = []
    broken, early, late = 0, {}, {}
    start = time.perf_counter()
    with WatchedCamera(uri, WatchOptions(stall_s=10), lossless=lossless) as camera:
        for item in camera:
            if isinstance(item, BrokenFrame):
                broken += 1
                continue
            numbers.append(int(item.name.rpartition("-")[2]))
            if not early and numbers[-1] >= frames // 10:
                early = state(camera.pid)
            if not lossless and len(numbers) % 50 == 0:
                time.sleep(0.005)  # a consumer that is late now and then
            if numbers[-1] >= frames - 2:
                late = state(camera.pid)
        health = camera.health
    seconds = time.perf_counter() - start
    in_order = all(a < b for a, b in zip(numbers, numbers[1:]))
    uncounted = frames - len(numbers) - health.dropped
    grown = {k: late[k] - early[k] for k in early}
    return {
        "phase": "lossless" if lossless else "live",
        "delivered": len(numbers),
        "dropped_and_counted": health.dropped,
        "lost_uncounted": uncounted,
        "in_order": in_order,
        "broken": broken,
        "faults": dict(health.faults),
        "frames_per_second": round(frames / seconds, 1),
        "at_a_tenth": early,
        "grown": grown,
        "ok": uncounted == 0 and in_order and not broken and (not lossless or health.dropped == 0) and small(grown),
    }


def small(grown: dict[str, int]) -> bool:
    """Nothing grows: descriptors, threads and children not at all, memory by less than 2 MB a process."""
    counts = all(grown[k] <= 0 for k in ("parent_fds", "child_fds", "threads", "children"))
    return counts and grown["parent_kb"] < 2048 and grown["child_kb"] < 2048


def restarts(count: int) -> dict[str, object]:
    """The capture process is killed again and again; frames come back each time and nothing stays behind."""
    options = WatchOptions(stall_s=5, backoff_s=0.05, backoff_max_s=0.05, calm_s=0)
    killed, good, early, late = 0, 0, {}, {}
    with WatchedCamera("fault:none?fps=200", options) as camera:
        for item in camera:
            good = good + 1 if isinstance(item, Frame) and not item.health else 0
            if good < 20:
                continue
            if killed == 1:
                early = state(camera.pid)
            late = state(camera.pid)
            if killed == count:
                break
            os.kill(camera.pid, signal.SIGKILL)
            killed, good = killed + 1, 0
        steps = dict(camera.health.steps)
    grown = {k: late[k] - early[k] for k in early}
    return {
        "phase": "restarts",
        "killed": killed,
        "steps": steps,
        "grown": grown,
        "ok": small(grown) and steps == {"restart process": count},
    }


def main() -> int:
    """Run the phases, print one table (or JSON), and fail when anything was lost or grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20000)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    size = given.width, given.height
    phase(50, size, True)  # imports and allocators have settled
    rows = [phase(given.frames, size, True), phase(given.frames, size, False), restarts(given.restarts)]
    if given.json:
        print(json.dumps({"frames": given.frames, "size": size, "phases": rows}, indent=2))
    else:
        for row in rows:
            print(f"{row['phase']}: {'ok' if row['ok'] else 'FAILED'}")
            for key, value in row.items():
                if key not in ("phase", "ok"):
                    print(f"  {key}: {value}")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
