"""A bundle that was changed, cut, added to or made by a later version is refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle import SCHEMA, Bundle, Threshold
from edge_ad.bundle.manifest import safe_relative
from edge_ad.errors import EdgeAdError
from tests.bundle.harm import delete, edit, flip, link_out, stray, truncate_manifest
from tests.bundles import CLASSES

FAULTS: dict[str, tuple[Callable[[Bundle], None], str]] = {
    "missing file": (delete, r"onnx/rgb.onnx is missing.*edge-ad export"),
    "one bit": (flip, r"onnx/rgb.onnx has SHA-256 [0-9a-f]{12}...; expected [0-9a-f]{12}...; the file was changed"),
    "stray file": (stray, r"onnx/extra.onnx is not in its manifest"),
    "link out": (link_out, r"link that leads out"),
    "truncated manifest": (truncate_manifest, r"is not JSON"),
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


@given(st.text(alphabet="ab./\\:\0\n", max_size=8))
def test_safe_names_stay_inside(name: str) -> None:
    root = Path("/bundle")
    try:
        safe_relative(name, "here")
    except EdgeAdError:
        return
    assert Path(os.path.normpath(root / name)).is_relative_to(root) and root / name != root


def test_an_edited_threshold_is_noticed(bundle: Bundle) -> None:
    name = CLASSES[0].name
    bundle.with_thresholds({name: Threshold(0.25, 0.25, 20, 0.05, "2026-01-01T00:00:00+00:00")}, "fp32")
    assert Bundle.open(bundle.path).threshold(name, "fp32") is not None
    manifest = bundle.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.25", "0.75"))
    with pytest.raises(EdgeAdError, match="does not match its own digest"):
        Bundle.open(bundle.path)
