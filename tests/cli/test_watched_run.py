"""``edge-ad run`` on a camera that fails, on a camera that moved, behind triggers, and against recorded results."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from click.testing import Result

from edge_ad.frame import Frame
from tests.cli.place import call
from tests.disk import copy_with_limits, write_recording, write_recordings
from tests.sensors.capture.test_lifecycle import gone
from tests.training.tiny import make_frame


@pytest.fixture(scope="module")
def bundle(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Limits so wide that every part is normal: what is not normal is so for its camera."""
    return copy_with_limits(tiny_export, tmp_path_factory.mktemp("watched") / "bundle", 1e6)


def results(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def camera(kind: str, folder: Path, **options: object) -> str:
    source = quote(f"folder:{folder}?loop=1", safe="/")
    given = {"fps": 30, **options}
    return f"fault:{kind}?source={source}&" + "&".join(f"{k}={v}" for k, v in given.items())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        pytest.param("zero", "no pixel has depth", marks=pytest.mark.slow),
        ("ahead", "colour is ahead of depth"),
    ],
)
def test_while_the_camera_lies_nothing_is_normal(kind: str, words: str, bundle: Path, tmp_path: Path) -> None:
    # The camera runs on while the model loads; the restart of its stream makes it well again for 60 frames.
    uri = camera(kind, write_recordings(tmp_path / "parts", 6), at=60)
    done = call("run", bundle, "--camera", uri, "--class", "cookie", "--no-drop", "--frames", 90)
    assert done.exit_code == 0, done.stderr
    out = results(done)
    assert any(r["decision"] == "normal" and r["health"] == "ok" for r in out)
    ill = [r for r in out if words in " ".join(r["reasons"])]
    assert ill and all(r["decision"] == "invalid" for r in ill)
    assert kind == "zero" or all(r["health"] == "degraded" for r in ill)
    assert all(r["health"] == "ok" for r in out if r["decision"] == "normal")


def test_a_stall_is_reported_as_invalid_results_and_in_the_summary(bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    uri = camera("stall", write_recordings(tmp_path / "parts", 6), at=90, frames=100, state=state, **{"for": 0.8})
    done = call("run", bundle, "--camera", uri, "--class", "cookie", "--stall-timeout", 0.3, "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["decisions"]["invalid"] >= 1 and summary["camera"]["faults"]["stalled"] == 1
    assert summary["camera"]["steps"] == {"retry": 1} and "no frame for" in done.stderr


def test_without_the_watchdog_the_camera_is_read_as_it_is(bundle: Path, tmp_path: Path) -> None:
    uri = camera("ahead", write_recordings(tmp_path / "parts", 6), at=0, frames=3, fps=0)
    done = call("run", bundle, "--camera", uri, "--class", "cookie", "--no-watchdog", "--no-drop", "--json")
    assert json.loads(done.stdout)["camera"] is None
    assert json.loads(done.stdout)["decisions"] == {"normal": 3}


def test_a_calibrated_scene_notices_a_camera_that_moved(bundle: Path, tmp_path: Path) -> None:
    def lowered(i: int, frame: Frame) -> Frame:
        assert frame.depth is not None
        depth = np.where(frame.depth > 150, frame.depth - 150, 0) if i >= 3 else frame.depth
        return replace(frame, depth=depth.astype(np.uint16))

    mine = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    good = write_recordings(tmp_path / "good", 6)
    calibrated = call("calibrate", "scene", mine, "--camera", f"folder:{good}", "--json")
    assert calibrated.exit_code == 0, calibrated.stderr
    assert json.loads(calibrated.stdout)["scene"]["plane"]["offset"] == pytest.approx(0.4, abs=1e-3)
    assert (mine / "scenes" / "cookie.png").is_file()
    moved = write_recordings(tmp_path / "moved", 6, lowered)
    for class_name in ("cookie", "auto"):
        out = results(call("run", mine, "--camera", f"folder:{moved}", "--class", class_name))
        assert [r["decision"] for r in out] == ["normal"] * 3 + ["invalid"] * 3
        assert [r["health"] for r in out] == ["ok"] * 3 + ["degraded"] * 3
        told = re.search(r"supporting plane is ([0-9.]+) mm nearer", out[3]["reasons"][-1])
        assert told is not None and float(told[1]) == pytest.approx(15, abs=0.3)


def test_triggers_choose_the_frames(bundle: Path, tmp_path: Path) -> None:
    good = write_recordings(tmp_path / "parts", 7)
    done = call("run", bundle, "--camera", f"folder:{good}", "--class", "cookie", "--trigger", "every:3", "--json")
    summary = json.loads(done.stdout)
    assert summary["frames"] == 3 and summary["passed_by"] == 4
    bad = call("run", bundle, "--camera", f"folder:{good}", "--trigger", "often")
    assert bad.exit_code == 1 and "trigger 'often'" in bad.stderr


def test_recorded_results_hold_a_later_run(bundle: Path, tmp_path: Path) -> None:
    good, file = write_recordings(tmp_path / "parts", 6), tmp_path / "results.jsonl"
    run = ("run", bundle, "--camera", f"folder:{good}", "--class", "cookie", "--threads", 1)
    assert call(*run, "--record-results", file).exit_code == 0
    again = call(*run, "--expect-results", file, "--json")
    assert again.exit_code == 0 and json.loads(again.stdout)["agreed"] == 6

    darker = replace(make_frame("cookie", 2), colour=make_frame("cookie", 2).colour // 2)
    write_recording(good, "r2", darker)
    other = call(*run, "--expect-results", file)
    assert other.exit_code == 1
    assert other.stderr.splitlines()[-1].startswith("error: frame 2 (") and "r2" in other.stderr
    fewer = call(*run, "--expect-results", file, "--frames", 2)
    assert fewer.exit_code == 1 and "ended after 2 frames" in fewer.stderr


def test_no_camera_is_one_line(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"began": 1.0}')  # it went away long ago
    done = call("run", bundle, "--camera", f"fault:disconnect?state={tmp_path / 'state.json'}")
    assert done.exit_code == 1 and done.stderr.count("error: ") == 1 and "is not connected" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_ends_a_run_whose_camera_hangs(number: signal.Signals, bundle: Path, tmp_path: Path) -> None:
    """One signal, a summary, no orphan, although nothing comes from the camera any more."""
    uri = camera("stall", write_recordings(tmp_path / "parts", 6), at=3)
    command = [sys.executable, "-m", "edge_ad.cli.main", "run", str(bundle), "--camera", uri, "--class", "cookie"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for _ in range(4):  # three frames, or fewer where the newest won, and the first report
        if "no frame" in run.stdout.readline():
            break
    children = [int(p) for p in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
    start = time.monotonic()
    os.kill(run.pid, number)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 0 and time.monotonic() - start < 10
    assert "invalid" in said
    assert all(gone(child) for child in children)
