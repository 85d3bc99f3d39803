"""The bundle: what is written comes back; everything else is refused in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle import SCHEMA, Bundle, ClassEntry, Threshold, add_files
from edge_ad.bundle.manifest import safe_relative
from edge_ad.errors import EdgeAdError
from tests.bundles import CLASSES, golden_frame, mlp, tiny_bundle

THRESHOLD = Threshold(0.5, 0.4, 20, 0.01, "2025-01-01T00:00:00+00:00")


def edit(bundle: Bundle, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = bundle.path / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_what_is_written_comes_back(master: Bundle) -> None:
    opened = Bundle.open(master.path)
    assert opened.manifest == master.manifest
    assert opened.classes == CLASSES and opened.class_names == ("bracket", "cap")
    assert opened.preset.name == "compact"
    assert opened.points_scale_m == 0.05 and opened.balance == (0.1, 0.2, 0.3)
    assert opened.graph("score").inputs[0].shape == ("rows", 8)
    assert opened.graph_path("rgb").read_bytes()
    assert opened.anchors is not None and opened.anchors.shape == (2, 384)
    assert opened.scene("bracket") is None
    scene = opened.scene("cap")
    assert scene is not None and scene["roi"].dtype == bool and scene["roi"].all()
    assert opened.precisions == ("fp32",)


def test_golden_frames_come_back_bit_for_bit(master: Bundle) -> None:
    frames = Bundle.open(master.path).golden()
    assert [g.name for g in frames] == ["part-000", "part-001"] and [g.defect for g in frames] == [False, True]
    for seed, got in enumerate(frames):
        want = golden_frame(f"part-{seed:03d}", defect=bool(seed), seed=seed)
        np.testing.assert_array_equal(got.map, want.map)
        np.testing.assert_array_equal(got.frame.colour, want.frame.colour)
        assert got.frame.depth is not None and got.frame.depth.dtype == np.uint16
        np.testing.assert_array_equal(got.frame.depth, want.frame.depth)
        assert got.frame.intrinsics == want.frame.intrinsics and got.frame.flags == ("repeated",)
        assert got.score == want.score


@pytest.mark.parametrize("changes", [{"geometry": {}}, {"geometry": {"points_scale_m": 0}}])
def test_a_scale_that_is_no_length(tmp_path: Path, changes: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(EdgeAdError, match="points_scale_m is (None|0.0); expected metres > 0"):
        _ = tiny_bundle(tmp_path / "b", **changes).points_scale_m


@pytest.mark.parametrize("balance", [None, [1, 2], [1, 2, 0], [1, 2, "3"], 1.0])
def test_a_balance_that_is_none(tmp_path: Path, balance: object) -> None:
    with pytest.raises(EdgeAdError, match="expected three numbers > 0"):
        _ = tiny_bundle(tmp_path / "b", fusion={"balance": balance}).balance


def test_thresholds_are_kept_and_others_stay(bundle: Bundle) -> None:
    assert bundle.threshold("cap", "fp32") is None
    first = bundle.with_thresholds({"cap": THRESHOLD}, "fp32")
    bundle.with_thresholds(
        {"bracket": replace(THRESHOLD, value=2.0, lost_share=0.1, anchor_distance=1.2, augmented=True)},
        "int8",
        variant="red",
    )  # from a stale object
    opened = Bundle.open(bundle.path)
    assert first.threshold("cap", "fp32") == opened.threshold("cap", "fp32") == THRESHOLD
    got = opened.threshold("bracket", "int8", "red")
    assert got is not None
    assert (got.value, got.lost_share, got.anchor_distance, got.augmented) == (2.0, 0.1, 1.2, True)
    assert opened.threshold("bracket", "int8") is None


@pytest.mark.parametrize(
    ("threshold", "precision", "text"),
    [
        (replace(THRESHOLD, value=float("nan")), "fp32", "value is nan"),
        (replace(THRESHOLD, mask_value=float("inf")), "fp32", "mask_value is inf"),
        (replace(THRESHOLD, false_reject_rate=1.5), "fp32", "rate in 0..1"),
        (replace(THRESHOLD, lost_share=-0.1), "fp32", "a share >= 0"),
        (replace(THRESHOLD, anchor_distance=float("nan")), "fp32", "anchor_distance is nan"),
        (THRESHOLD, "fp4", "unknown precision"),
    ],
)
def test_bad_thresholds_change_nothing(bundle: Bundle, threshold: Threshold, precision: str, text: str) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(EdgeAdError, match=text):
        bundle.with_thresholds({"cap": threshold}, precision)
    assert (bundle.path / "manifest.json").read_bytes() == before


def _delete(b: Bundle) -> None:
    (b.path / "onnx/rgb.onnx").unlink()


def flip(b: Bundle) -> None:
    path = b.path / "onnx/rgb.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _stray(b: Bundle) -> None:
    (b.path / "onnx/extra.onnx").write_bytes(b"x")


def _link_out(b: Bundle) -> None:
    outside = b.path.parent / "outside.onnx"
    shutil.move(b.path / "onnx/rgb.onnx", outside)
    (b.path / "onnx/rgb.onnx").symlink_to(outside)


def _truncate_manifest(b: Bundle) -> None:
    path = b.path / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])


FAULTS: dict[str, tuple[Callable[[Bundle], None], str]] = {
    "missing file": (_delete, r"onnx/rgb.onnx is missing.*edge-ad export"),
    "one bit": (flip, r"onnx/rgb.onnx has SHA-256 [0-9a-f]{12}...; expected [0-9a-f]{12}...; the file was changed"),
    "stray file": (_stray, r"onnx/extra.onnx is not in its manifest"),
    "link out": (_link_out, r"link that leads out"),
    "truncated manifest": (_truncate_manifest, r"is not JSON"),
    "no manifest": (lambda b: (b.path / "manifest.json").unlink(), r"is not a bundle"),
    "future": (
        lambda b: edit(b, lambda m: m.update(schema=SCHEMA + 1)),
        rf"schema {SCHEMA + 1}; expected at most {SCHEMA}; update",
    ),
    "schema text": (lambda b: edit(b, lambda m: m.update(schema="1")), r"schema is '1'"),
    "schema bool": (lambda b: edit(b, lambda m: m.update(schema=True)), r"schema is True"),
    "list": (lambda b: (b.path / "manifest.json").write_text("[]"), r"is a list"),  # type: ignore[dict-item, return-value]
    "no classes": (lambda b: edit(b, lambda m: m.update(classes=[])), r"classes \[\]"),
    "twice": (lambda b: edit(b, lambda m: m["classes"].append(m["classes"][0])), r"each named once"),
    "class path": (lambda b: edit(b, lambda m: m["classes"][0].update(name="../x")), r"name '../x'"),
    "missing field": (lambda b: edit(b, lambda m: m.pop("graphs") and None), r"'graphs' is missing"),
    "traversal": (lambda b: edit(b, lambda m: m["files"].update({"../x": "0" * 64})), r"unsafe file name '../x'"),
    "absolute": (lambda b: edit(b, lambda m: m["files"].update({"/etc/passwd": "0" * 64})), r"unsafe file name"),
    "graph path": (lambda b: edit(b, lambda m: m["graphs"]["rgb"].update(file="../rgb.onnx")), r"unsafe file name"),
    "graph unlisted": (
        lambda b: edit(b, lambda m: m["graphs"]["rgb"].update(file="onnx/no.onnx")),
        r"which has no hash",
    ),
    "hash": (lambda b: edit(b, lambda m: m["files"].update({"anchors.npz": "12"})), r"hexadecimal SHA-256"),
    "engines listed": (lambda b: edit(b, lambda m: m["files"].update({"engines/a": "0" * 64})), r"nor engines"),
    "NaN": (lambda b: edit(b, lambda m: m["fusion"].update(balance=[float("nan")])), r"fusion.balance.0 is nan"),
    "scale": (lambda b: edit(b, lambda m: m["geometry"].update(points_scale_m="5 cm")), r"points_scale_m is '5 cm'"),
    "preset": (lambda b: edit(b, lambda m: m["preset"]["rgb"].update(encoder="resnet")), r"encoder is 'resnet'"),
    "shape": (lambda b: edit(b, lambda m: m["graphs"]["rgb"]["inputs"][0].update(shape=[-1, 3])), r"shape \[-1, 3\]"),
    "foreign class": (lambda b: edit(b, lambda m: m["thresholds"].update(nut={})), r"unknown class 'nut'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused_in_one_line(bundle: Bundle, fault: str) -> None:
    plant, text = FAULTS[fault]
    plant(bundle)
    with pytest.raises(EdgeAdError, match=text) as e:
        Bundle.open(bundle.path)
    assert "\n" not in str(e.value)


def test_what_a_kill_and_the_engines_leave_is_no_fault(bundle: Bundle) -> None:
    (bundle.path / ".manifest.json.123.tmp").write_text("{")
    (bundle.path / "engines/tensorrt-fp32-sm87").mkdir(parents=True)
    (bundle.path / "engines/tensorrt-fp32-sm87/rgb.plan").write_bytes(b"x")
    Bundle.open(bundle.path)


def test_unverified_opening_reads_no_file(bundle: Bundle) -> None:
    flip(bundle)
    assert Bundle.open(bundle.path, verify=False).manifest == bundle.manifest


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_what_is_no_bundle(tmp_path: Path, path: str) -> None:
    with pytest.raises(EdgeAdError, match="does not exist|is not a bundle"):
        Bundle.open(tmp_path / path)


def test_unknown_names_list_the_known(bundle: Bundle) -> None:
    for call, text in (
        (lambda: bundle.graph("nope"), "rgb, points, tokens, score"),
        (lambda: bundle.graph_path("rgb", "fp16"), "no fp16 graph .*use --precision fp32"),
        (lambda: bundle.graph_path("rgb", "fp8"), "fp32, fp16, int8"),
        (lambda: bundle.threshold("nut", "fp32"), "bracket, cap"),
        (lambda: bundle.scene("nut"), "bracket, cap"),
    ):
        with pytest.raises(EdgeAdError, match=text):
            call()


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, anchors=np.array([{"a": 1}, {}], dtype=object))
    opened = tiny_bundle(tmp_path / "b", extra_files={"anchors.npz": buffer.getvalue()})
    with pytest.raises(EdgeAdError, match="cannot be read"):
        _ = opened.anchors


@pytest.mark.parametrize(
    ("anchors", "text"),
    [(np.zeros((3, 4), np.float32), r"float32 \(3, 4\)"), (np.zeros((2, 4)), r"float64"), (None, "no array 'anchors'")],
)
def test_anchors_that_do_not_fit(tmp_path: Path, anchors: np.ndarray | None, text: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **({} if anchors is None else {"anchors": anchors}))
    opened = tiny_bundle(tmp_path / "b", extra_files={"anchors.npz": buffer.getvalue()})
    with pytest.raises(EdgeAdError, match=text):
        _ = opened.anchors


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": (ClassEntry("a/b", ""),)}, "name 'a/b'"),
        ({"extra_files": {"../x": b"x"}}, "unsafe file name"),
        ({"extra_files": {"manifest.json": b"x"}}, "neither the manifest"),
        ({"extra_files": {"x": Path("nowhere")}}, "does not exist"),
        ({"geometry": {"points_scale_m": float("inf")}}, "is inf"),
    ],
)
def test_writing_refuses_what_opening_would(tmp_path: Path, changes: dict, text: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(EdgeAdError, match=text):
        tiny_bundle(tmp_path / "b", **changes)
    assert list(tmp_path.iterdir()) == []


def test_replacing_replaces_bundles_alone(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match="exists already"):
        tiny_bundle(bundle.path)
    (bundle.path / "engines").mkdir()
    tiny_bundle(bundle.path, name="new", replace=True)
    assert Bundle.open(bundle.path).manifest.name == "new" and not (bundle.path / "engines").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("x")
    with pytest.raises(EdgeAdError, match="is not a bundle"):
        tiny_bundle(home, replace=True)
    assert (home / "precious").read_text() == "x"


def test_files_are_added_with_their_hash_and_engines_stay(bundle: Bundle) -> None:
    (bundle.path / "engines/k").mkdir(parents=True)
    (bundle.path / "engines/k/rgb.plan").write_bytes(b"plan")
    bundle.with_thresholds({"cap": THRESHOLD}, "fp32")
    graphs = {f"onnx/fp16/{g}.onnx": mlp(2, (3, 2))[0] for g in bundle.manifest.graphs}
    added = add_files(bundle, graphs)
    opened = Bundle.open(bundle.path)
    assert opened.manifest == added.manifest and opened.precisions == ("fp32", "fp16")
    assert opened.threshold("cap", "fp32") == THRESHOLD
    assert opened.graph_path("rgb", "fp16").is_file() and opened.graph_path("rgb").is_file()
    assert (bundle.path / "engines/k/rgb.plan").read_bytes() == b"plan"
    with pytest.raises(EdgeAdError, match="unsafe"):
        add_files(bundle, {"../x": b""})


@given(st.text(alphabet="ab./\\:\0\n", max_size=8))
def test_safe_names_stay_inside(name: str) -> None:
    root = Path("/bundle")
    try:
        safe_relative(name, "here")
    except EdgeAdError:
        return
    assert Path(os.path.normpath(root / name)).is_relative_to(root) and root / name != root


def test_a_kill_while_writing_leaves_no_bundle(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        import edge_ad.bundle.writer as writer
        from tests.bundles import tiny_bundle
        real = writer.write_json
        def slow(path, value):
            Path(sys.argv[2]).touch()
            time.sleep(60)
        writer.write_json = slow
        tiny_bundle(Path(sys.argv[1]))
    """
    flag = tmp_path / "flag"
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "b"), str(flag)])
    deadline = time.monotonic() + 30
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert flag.exists() and not (tmp_path / "b").exists()
    tiny_bundle(tmp_path / "b")
    Bundle.open(tmp_path / "b")


def test_an_edited_threshold_is_noticed(bundle: Bundle) -> None:
    name = CLASSES[0].name
    bundle.with_thresholds({name: Threshold(0.25, 0.25, 20, 0.05, "2026-01-01T00:00:00+00:00")}, "fp32")
    assert Bundle.open(bundle.path).threshold(name, "fp32") is not None
    manifest = bundle.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.25", "0.75"))
    with pytest.raises(EdgeAdError, match="does not match its own digest"):
        Bundle.open(bundle.path)
