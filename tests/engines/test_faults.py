"""The fault table of engines: whatever is wrong with a file, one clear line and a bundle that still works."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from onnx import helper

from edge_ad.bundle import Bundle, GraphSpec, TensorSpec, open_bundle
from edge_ad.bundle.manifest import seal
from edge_ad.cli.main import main
from edge_ad.engines import find_engine
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.backends import load_session
from tests.bundles import tiny_bundle
from tests.engines import fake_gpu
from tests.engines.plans import write_engine
from tests.killed import run_until_killed

pytestmark = pytest.mark.usefixtures("no_kernels")

FOLDER = "engines/tensorrt-rtx-fp32-sm86"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def future_manifest(bundle: Path) -> None:
    values = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(seal({**values, "schema": 99})))


# name -> (what is done to the bundle, what the line says)
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte in the plan": (
        lambda b: flip(b / FOLDER / "rgb.plan"),
        "rgb.plan has SHA-256 .*expected .*, its sidecar's; run: edge-ad build-engine .* --force",
    ),
    "truncated plan": (
        lambda b: (b / FOLDER / "rgb.plan").write_bytes((b / FOLDER / "rgb.plan").read_bytes()[:-1]),
        "rgb.plan has 2 bytes; expected 3, as its sidecar; run: edge-ad build-engine .* --force",
    ),
    "empty plan": (lambda b: (b / FOLDER / "rgb.plan").write_bytes(b""), "rgb.plan has 0 bytes; expected 3"),
    "no plan": (lambda b: (b / FOLDER / "rgb.plan").unlink(), "rgb.plan is missing"),
    "sidecar of another SM": (
        lambda b: edit(b / FOLDER / "sidecar.json", capabilities=["8.9"]),
        "was built for compute capability 8.9; expected 8.6, this device's; run: edge-ad build-engine",
    ),
    "sidecar of another TensorRT": (
        lambda b: edit(b / FOLDER / "sidecar.json", version="1.6.0"),
        "was built by tensorrt-rtx 1.6.0; expected 1.7.1.116, installed here; run: edge-ad build-engine",
    ),
    "sidecar from the future": (
        lambda b: edit(b / FOLDER / "sidecar.json", schema=9),
        "schema 9; expected at most 1; update edge-ad",
    ),
    "manifest from the future": (future_manifest, "manifest schema 99; expected at most 1; update edge-ad"),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = tiny_bundle(tmp_path / "tiny")
    write_engine(bundle, fake_gpu.VERSION, ("8.6",))
    return bundle


@pytest.mark.parametrize("fault", FAULTS)
def test_files(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    _, module = fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    plant, text = FAULTS[fault]
    manifest = (bundle.path / "manifest.json").read_bytes()
    plant(bundle.path)
    with pytest.raises(EdgeAdError, match=text) as e:
        load_session(open_bundle(bundle.path), "rgb", "tensorrt-rtx")
    assert "\n" not in str(e.value)
    assert module.world.loaded == [], "TensorRT never saw a byte of it"
    (bundle.path / "manifest.json").write_bytes(manifest)
    assert load_session(open_bundle(bundle.path), "rgb").inputs[0].name == "x", "the bundle still works"


def test_candidates_that_were_passed_over_are_logged(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    write_engine(bundle, fake_gpu.VERSION, ("portable",))
    edit(bundle.path / FOLDER / "sidecar.json", version="1.6.0")
    folder, _ = find_engine(bundle, "tensorrt-rtx", "fp32", (8, 6), fake_gpu.VERSION)
    assert folder.name == "tensorrt-rtx-fp32-portable"
    assert (
        "passed over: engine tensorrt-rtx-fp32-sm86" in caplog.text and "was built by tensorrt-rtx 1.6.0" in caplog.text
    )
    edit(bundle.path / "engines/tensorrt-rtx-fp32-portable/sidecar.json", version="1.5.0")
    assert find_engine(bundle, "tensorrt-rtx", "fp32", (8, 6), fake_gpu.VERSION)[0].name == "tensorrt-rtx-fp32-sm86"


def test_engines_of_other_devices_are_no_warning(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    write_engine(bundle, fake_gpu.VERSION, ("8.9",))
    assert find_engine(bundle, "tensorrt-rtx", "fp32", (8, 6), fake_gpu.VERSION)[0].name == "tensorrt-rtx-fp32-sm86"
    assert caplog.text == ""


def command(*args: object) -> tuple[int, str]:
    shown = CliRunner().invoke(main, list(map(str, args)))
    assert "Traceback" not in shown.output
    return shown.exit_code, shown.stderr


def test_an_unknown_node_on_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    ins, outs = (TensorSpec("x", (4,), "float32"),), (TensorSpec("y", (4,), "float32"),)
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="the_culprit", domain="my.domain")
    infos = [[helper.make_tensor_value_info(t[0].name, 1, t[0].shape)] for t in (ins, outs)]
    graph = helper.make_graph([node], "g", *infos)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    data = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    spec = GraphSpec("onnx/rgb.onnx", ins, outs)
    bundle = tiny_bundle(tmp_path / "b", graphs={"rgb": spec}, extra_files={"onnx/rgb.onnx": data})
    code, err = command("build-engine", bundle.path, "--backend", "tensorrt-rtx", "--compute-capability", "8.6")
    assert code == 1 and "node 'the_culprit' (NoSuchOperator)" in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    open_bundle(bundle.path)


def test_no_disk_space(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    real = os.fsync

    def full(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".tmp") and "score.plan" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    before = {p.name: p.read_bytes() for p in (bundle.path / FOLDER).iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    args = ("build-engine", bundle.path, "--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--force")
    code, err = command(*args)
    assert code == 1 and "No space left on device" in err and "free some space" in err
    monkeypatch.setattr(os, "fsync", real)
    assert {p.name: p.read_bytes() for p in (bundle.path / FOLDER).iterdir()} == before, "the old engine is untouched"
    assert not [p for p in (bundle.path / "engines").iterdir() if p.name.endswith(".tmp")]
    assert command(*args)[0] == 0


def test_killed_while_replacing_an_engine(bundle: Bundle, tmp_path: Path) -> None:
    """A kill in the middle of a rebuild leaves the old engine whole."""
    pytest.importorskip("tensorrt_rtx")
    before = {p.name: p.read_bytes() for p in (bundle.path / FOLDER).iterdir()}
    script = """
        import sys
        from edge_ad.bundle import open_bundle
        from edge_ad.engines import build
        build.add_kernels = lambda *args: None
        real = build.write_json
        build.write_json = lambda path, value: (real(path, value), kill())
        build.build_engines(open_bundle(sys.argv[1]), "tensorrt-rtx", compute_capability=("8.6",), force=True)
    """
    run_until_killed(script, bundle.path)
    assert {p.name: p.read_bytes() for p in (bundle.path / FOLDER).iterdir()} == before
    args = ("build-engine", bundle.path, "--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--force")
    assert command(*args)[0] == 0
    assert not [p for p in (bundle.path / "engines").iterdir() if p.name.endswith(".tmp")], "leftovers are swept"
    open_bundle(bundle.path)


def test_a_bundle_that_cannot_be_written_still_serves(
    tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The gate's verdict cannot be kept: it is asked again next time, and said."""
    from edge_ad.engines import gate, passes
    from edge_ad.runtime.detector import Detector

    shutil.copytree(tiny_export, tmp_path / "b")
    bundle = open_bundle(tmp_path / "b")
    fake_gpu.install(monkeypatch, bundle.path / "onnx", set())
    write_engine(bundle, fake_gpu.VERSION, ("8.6",))

    def refuse(path: Path, value: object) -> None:
        raise EdgeAdError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(passes, "write_json", refuse)
    detector = Detector(bundle, "tensorrt-rtx", need_threshold=False)
    for _ in range(2):
        report = gate.ensure(detector, "tensorrt-rtx")
        assert report is not None and report.passed
    assert "verdict was not kept" in caplog.text
