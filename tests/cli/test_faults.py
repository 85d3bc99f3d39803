"""Bad input, through the command line: one line that says what was found, what was expected, what to do.

Exit code 1, and nothing half written stays behind. Bad frames within a run: ``test_bad_frames.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.place import Place, call, cut, leftovers, redraw
from tests.disk import write_recordings


def run(p: Place, bundle: Path, *more: object) -> tuple[object, ...]:
    data = write_recordings(p.root / "frames")
    return ("run", bundle, "--camera", f"folder:{data}", "--output", f"folder:{p.out}", *more)


def all_zero(p: Place) -> tuple[object, ...]:
    arguments = run(p, p.ready)
    for i in range(3):
        redraw(p.root / f"frames/r{i}.depth.png", np.zeros_like)
    return arguments


def changed_bundle(p: Place) -> Path:
    bundle = p.copy(p.ready)
    file = bundle / "onnx/score.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    return bundle


def removed_graph(p: Place) -> Path:
    bundle = p.copy(p.ready)
    (bundle / "onnx/rgb.onnx").unlink()
    return bundle


def edited(folder: Path, file: str, change: Callable[[dict], object]) -> Path:  # type: ignore[type-arg]
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))
    return folder


def without_checkpoint(p: Place) -> Path:
    model = p.copy(p.model)
    return edited(model, "model.json", lambda v: v["preset"]["rgb"].update(checkpoint="/nowhere/lite0.pth"))


def cut_weights(p: Place) -> Path:
    model = p.copy(p.model)
    cut(model / "model.safetensors")
    return model


def empty(p: Place) -> Path:
    (p.root / "empty").mkdir()
    return p.root / "empty"


def some_file(p: Place) -> Path:
    (p.root / "note.txt").write_text("no data")
    return p.root / "note.txt"


def blind(p: Place) -> Path:
    """A data set in which no depth image has depth."""
    data = p.copy(p.data)
    for path in data.rglob("*.depth.png"):
        redraw(path, np.zeros_like)
    return data


def export(p: Place, model: Path, *more: object) -> tuple[object, ...]:
    return ("export", model, p.out, "--data", p.data, *more)


def evaluate(p: Place, target: Path, data: Path, *more: object) -> tuple[object, ...]:
    return ("evaluate", target, "--data", data, "--jobs", 1, "--no-baseline", "--sheet", p.root / "sheet.png", *more)


def calibrate(p: Place, *more: object, data: Path | None = None) -> tuple[object, ...]:
    return ("calibrate", "thresholds", p.copy(p.bare, "bundle"), "--data", data or p.data, "--jobs", 1, *more)


def fit(p: Place, data: Path, *more: object) -> tuple[object, ...]:
    return ("fit", "--data", data, "--out", p.out, *more)


FAULTS: dict[str, tuple[Callable[[Place], tuple[object, ...]], tuple[str, ...]]] = {
    "run: unknown class": (lambda p: run(p, p.ready, "--class", "gear"), ("unknown class 'gear'", "hex_nut, cookie")),
    "run: no threshold": (lambda p: run(p, p.bare), ("no threshold for class", "edge-ad calibrate thresholds")),
    "run: a bundle's file was changed": (lambda p: run(p, changed_bundle(p)), ("score.onnx", "edge-ad export")),
    "run: a bundle's file is missing": (lambda p: run(p, removed_graph(p)), ("rgb.onnx", "edge-ad export")),
    "run: no bundle": (lambda p: run(p, p.root / "none"), ("none does not exist", "edge-ad export")),
    "run: a model instead of a bundle": (lambda p: run(p, p.model), ("is not a bundle", "edge-ad export")),
    "run: empty folder": (
        lambda p: ("run", p.ready, "--camera", f"folder:{empty(p)}", "--output", f"folder:{p.out}"),
        ("no samples in", "MVTec 3D-AD"),
    ),
    "run: unknown camera": (
        lambda p: ("run", p.ready, "--camera", "usb:0", "--output", f"folder:{p.out}"),
        ("unknown scheme 'usb:'", "folder:"),
    ),
    "run: unknown output": (lambda p: (*run(p, p.ready)[:-1], "mqtt:x"), ("output 'mqtt:x'", "folder:DIR")),
    "run: backend": (lambda p: run(p, p.ready, "--backend", "abacus"), ("unknown backend 'abacus'", "onnxruntime")),
    "run: precision": (lambda p: run(p, p.bare, "--precision", "fp8"), ("fp8",)),
    "run: no frame could be inspected": (all_zero, ("none of the 3 frames", "no pixel has depth")),
    "calibrate: rate below 1 / (n + 1)": (
        lambda p: calibrate(p, "--false-reject-rate", 0.05),
        ("5 % from 3 held-out good parts", "1 / (n + 1) = 25 %", "use 19 good parts"),
    ),
    "calibrate: empty folder": (lambda p: calibrate(p, data=empty(p)), ("no samples in", "MVTec 3D-AD")),
    "calibrate: no such split": (lambda p: calibrate(p, "--split", "night"), ("split 'night'", "--split")),
    "calibrate: nothing readable": (
        lambda p: calibrate(p, "--false-reject-rate", 0.5, data=blind(p)),
        ("from 0 held-out good parts",),
    ),
    "evaluate: neither bundle nor model": (
        lambda p: evaluate(p, empty(p), p.data),
        ("is neither a bundle", "a model directory", "edge-ad fit"),
    ),
    "evaluate: nothing there": (lambda p: evaluate(p, p.root / "none", p.data), ("none does not exist", "a bundle")),
    "evaluate: a file": (lambda p: evaluate(p, some_file(p), p.data), ("note.txt",)),
    "evaluate: unknown class": (lambda p: evaluate(p, p.ready, p.data, "--class", "gear"), ("unknown class 'gear'",)),
    "evaluate: no such class in the data": (
        lambda p: evaluate(p, p.ready, p.data, "--classes", "gear"),
        ("no class 'gear'", "cookie"),
    ),
    "evaluate: nothing readable": (lambda p: evaluate(p, p.ready, blind(p)), ("none of the 8 test parts",)),
    "evaluate: missing checkpoint": (
        lambda p: evaluate(p, without_checkpoint(p), p.data),
        ("/nowhere/lite0.pth does not exist",),
    ),
    "export: missing checkpoint": (lambda p: export(p, without_checkpoint(p)), ("/nowhere/lite0.pth does not exist",)),
    "export: no model": (lambda p: export(p, empty(p)), ("is not a model directory", "edge-ad fit")),
    "export: weights cut short": (lambda p: export(p, cut_weights(p)), ("model.safetensors",)),
    "export: empty data": (lambda p: ("export", p.model, p.out, "--data", empty(p)), ("no samples in",)),
    "export: nothing readable": (lambda p: ("export", p.model, p.out, "--data", blind(p)), ("golden", "part in view")),
    "fit: empty data": (lambda p: fit(p, empty(p)), ("no samples in", "MVTec 3D-AD")),
    "fit: missing checkpoint": (
        lambda p: fit(p, p.data, "--preset", "cfm", "--checkpoints", empty(p)),
        ("dino_vitbase8_pretrain.pth does not exist",),
    ),
    "fit: no such data": (lambda p: fit(p, p.root / "none"), ("none does not exist", "a folder with samples")),
    "build-engine: a bundle's file was changed": (
        lambda p: ("build-engine", changed_bundle(p), "--backend", "onnxruntime"),
        ("score.onnx", "edge-ad export"),
    ),
}


@pytest.mark.parametrize(("arguments", "messages"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_one_line_and_exit_code_1(
    place: Place, arguments: Callable[[Place], tuple[object, ...]], messages: tuple[str, ...]
) -> None:
    argv = arguments(place)
    done = call(*argv)
    assert done.exit_code == 1, (done.exit_code, done.stdout, done.stderr)
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    for message in messages:
        assert message in last, last
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr
    assert leftovers(place.root) == []
    if argv[0] in ("export", "fit"):
        assert not place.out.exists()
    if argv[0] == "evaluate":
        assert not (place.root / "sheet.png").exists()
    if argv[0] == "calibrate":
        assert json.loads((place.root / "bundle/manifest.json").read_text())["thresholds"] == {}


def test_the_same_line_comes_with_json_and_stdout_stays_empty(place: Place) -> None:
    done = call("evaluate", place.root / "none", "--data", place.data, "--json")
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ")


def test_debug_adds_the_traceback_before_the_line(place: Place) -> None:
    done = call("evaluate", place.root / "none", "--data", place.data, "--debug")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1].startswith("error: ")
