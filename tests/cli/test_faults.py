"""Bad input, through the command line: one line that says what was found, what was expected, what to do.

A frame that cannot be inspected is ``decision: invalid`` and the run goes on; all else ends with exit code 1. Nothing
half written stays behind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from edge_ad.cli.main import main
from edge_ad.runtime.geometry import frame_xyz
from tests.disk import copy_with_limits, write_camera, write_parts, write_recording
from tests.training.tiny import make_frame


@dataclass(frozen=True)
class Place:
    """Where a test works: a bundle with thresholds, one without, a model, good data, and a folder for what is made."""

    root: Path
    ready: Path
    bare: Path
    model: Path
    data: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    def copy(self, source: Path, name: str = "copy") -> Path:
        return Path(shutil.copytree(source, self.root / name))


@pytest.fixture(scope="module")
def shared(tiny_model: Path, tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("faults")
    ready = copy_with_limits(tiny_export, folder / "ready", 1e6)
    return Place(folder, ready, tiny_export, tiny_model, write_parts(folder / "data", validation=3))


@pytest.fixture
def place(shared: Place, tmp_path: Path) -> Place:
    return Place(tmp_path, shared.ready, shared.bare, shared.model, shared.data)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.name.endswith(".tmp")]


# --- frames: the run goes on -------------------------------------------------------------------------------------


def recordings(folder: Path) -> Path:
    write_camera(folder)
    for i in range(3):
        write_recording(folder, f"r{i}", make_frame("cookie", i))
    return folder


def mvtec(folder: Path) -> Path:
    good = folder / "cookie/test/good"
    for kind in ("rgb", "xyz"):
        (good / kind).mkdir(parents=True)
    for i in range(3):
        frame = make_frame("cookie", i)
        cv2.imwrite(str(good / f"rgb/{i:03d}.png"), np.ascontiguousarray(frame.colour[..., ::-1]))
        tifffile.imwrite(good / f"xyz/{i:03d}.tiff", frame_xyz(frame), photometric="rgb")
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def redraw(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    cv2.imwrite(str(path), change(image))


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tifffile.imwrite(path, change(tifffile.imread(path)), photometric="rgb")


def only(rows: slice, cols: slice, border: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """Depth is kept in one window, and at the left border if asked."""

    def keep(depth: np.ndarray) -> np.ndarray:
        kept = np.zeros_like(depth)
        kept[rows, cols] = depth[rows, cols]
        if border:
            kept[:, :3] = depth[:, :3]
        return kept

    return keep


FIVE = only(slice(30, 31), slice(30, 35))
SPECK = only(slice(29, 31), slice(34, 36), border=True)
DEPTH, COLOUR = "r1.depth.png", "r1.color.png"
XYZ, RGB = "cookie/test/good/xyz/001.tiff", "cookie/test/good/rgb/001.png"

FRAMES: list[tuple[str, Callable[[Path], Path], Callable[[Path], None], str]] = [
    ("depth all zero", recordings, lambda d: redraw(d / DEPTH, np.zeros_like), "no pixel has depth"),
    ("fewer points than a group", recordings, lambda d: redraw(d / DEPTH, FIVE), "only 0 points with depth on"),
    ("a part smaller than a group", recordings, lambda d: redraw(d / DEPTH, SPECK), "no part stands above"),
    ("colour of another size", recordings, lambda d: redraw(d / COLOUR, lambda i: i[:40]), "72 x 60; expected 72 x 40"),
    ("depth of 8 bits", recordings, lambda d: redraw(d / DEPTH, lambda i: (i >> 8).astype(np.uint8)), "16 bits"),
    ("depth cut short", recordings, lambda d: cut(d / DEPTH), "the PNG is cut short"),
    ("colour cut short", recordings, lambda d: cut(d / COLOUR), "the PNG is cut short"),
    ("colour empty", recordings, lambda d: (d / COLOUR).write_bytes(b"") and None, "is empty (0 bytes)"),
    ("depth missing", recordings, lambda d: (d / DEPTH).unlink(), "does not exist"),
    ("xyz all NaN", mvtec, lambda d: rewrite(d / XYZ, lambda x: x * np.float32(np.nan)), "no pixel has depth"),
    ("xyz all zero", mvtec, lambda d: rewrite(d / XYZ, np.zeros_like), "no pixel has depth"),
    ("xyz cut short", mvtec, lambda d: cut(d / XYZ), "the TIFF is cut short"),
    ("xyz in millimetres", mvtec, lambda d: rewrite(d / XYZ, lambda x: x * 1000), "expected metres"),
    ("xyz of another size", mvtec, lambda d: rewrite(d / XYZ, lambda x: x[:40]), "72 x 40; expected 72 x 60"),
    ("colour of mvtec cut short", mvtec, lambda d: cut(d / RGB), "the PNG is cut short"),
]


@pytest.mark.parametrize(("make", "harm", "message"), [f[1:] for f in FRAMES], ids=[f[0] for f in FRAMES])
def test_a_bad_frame_is_invalid_and_the_run_goes_on(
    place: Place, make: Callable[[Path], Path], harm: Callable[[Path], None], message: str
) -> None:
    folder = make(place.root / "frames")
    harm(folder)
    done = call(
        "run", place.ready, "--camera", f"folder:{folder}", "--class", "cookie", "--output", f"folder:{place.out}"
    )
    assert done.exit_code == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["decision"] for line in lines] == ["normal", "invalid", "normal"]
    (reason,) = lines[1]["reasons"]
    assert any(m in reason for m in message.split("|")), reason
    assert "\n" not in reason
    assert "2 normal, 1 invalid" in done.stderr
    kept = [json.loads(line) for line in (place.out / "results.jsonl").read_text().splitlines()]
    assert [line["decision"] for line in kept] == ["normal", "invalid", "normal"]
    assert leftovers(place.root) == []


# --- all else: exit code 1 ---------------------------------------------------------------------------------------


def run(p: Place, bundle: Path, *more: object) -> tuple[object, ...]:
    data = recordings(p.root / "frames")
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
