"""The identity of an engine: every mismatch is refused in words, with the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle import Bundle, add_files
from edge_ad.engines import check, find_engine, read_sidecar
from edge_ad.errors import EdgeAdError
from tests.bundles import mlp, tiny_bundle
from tests.engines.plans import write_engine

VERSION = "1.7.1.116"
HERE = (8, 6)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    bundle = tiny_bundle(tmp_path / "tiny")
    write_engine(bundle, VERSION, ("8.6",))
    return bundle


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "sidecar.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def served(bundle: Bundle, version: str = VERSION, capability: tuple[int, int] | None = HERE) -> str:
    folder, sidecar = find_engine(bundle, "tensorrt-rtx", "fp32", capability)
    check(folder, sidecar, bundle, version=version, capability=capability)
    return folder.name


def test_the_right_engine_passes(bundle: Bundle) -> None:
    assert served(bundle) == "tensorrt-rtx-fp32-sm86"


def test_the_device_chooses_among_engines(bundle: Bundle) -> None:
    write_engine(bundle, VERSION, ("portable",))
    write_engine(bundle, VERSION, ("8.9", "12.0"))
    assert served(bundle) == "tensorrt-rtx-fp32-sm86"
    assert served(bundle, capability=(12, 0)) == "tensorrt-rtx-fp32-sm89-sm120"
    assert served(bundle, capability=(8, 0)) == "tensorrt-rtx-fp32-portable"


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tampered plan": (
        lambda f: (f / "rgb.plan").write_bytes(b"rgc"),
        r"rgb.plan has SHA-256 .*expected .*its sidecar's",
    ),
    "no plan": (lambda f: (f / "rgb.plan").unlink(), r"rgb.plan is missing"),
    "tampered sidecar hash": (
        lambda f: edit(f, lambda s: s["plans"]["rgb"].update(sha256="0" * 64)),
        r"rgb.plan has SHA-256 .*expected 000000000000",
    ),
    "other source": (
        lambda f: edit(f, lambda s: s["plans"]["rgb"].update(source_sha256="0" * 64)),
        r"rgb was built from a graph with SHA-256 0{12}.*the bundle's",
    ),
    "other device": (
        lambda f: edit(f, lambda s: s.update(capabilities=["8.9"])),
        r"capability 8.9; expected 8.6, this",
    ),
    "no device": (lambda f: edit(f, lambda s: s.update(capabilities=[])), r"capability no device; expected 8.6"),
    "other version": (lambda f: edit(f, lambda s: s.update(version="1.6")), r"tensorrt-rtx 1.6; expected 1.7.1.116"),
    "graph lost": (lambda f: edit(f, lambda s: s["plans"].pop("score")), r"lacks the graph score"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused_with_the_command_that_mends_them(bundle: Bundle, fault: str) -> None:
    plant, text = FAULTS[fault]
    plant(bundle.path / "engines/tensorrt-rtx-fp32-sm86")
    with pytest.raises(EdgeAdError, match=text) as e:
        served(bundle)
    assert f"edge-ad build-engine {bundle.path} --backend tensorrt-rtx --precision fp32 --force" in str(e.value)
    assert "\n" not in str(e.value)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no sidecar": (lambda f: (f / "sidecar.json").unlink(), "does not exist"),
    "cut off": (
        lambda f: (f / "sidecar.json").write_text("{"),
        "is not JSON.*; expected a sidecar that edge-ad build-engine wrote; build the engine again with --force",
    ),
    "list": (lambda f: (f / "sidecar.json").write_text("[]"), "is damaged"),
    "future": (lambda f: edit(f, lambda s: s.update(schema=9)), "schema 9; expected at most 1; update edge-ad"),
    "field lost": (lambda f: edit(f, lambda s: s.pop("version")), "is damaged"),
    "plan outside": (lambda f: edit(f, lambda s: s["plans"]["rgb"].update(file="../../x.plan")), "unsafe file name"),
    "plans text": (lambda f: edit(f, lambda s: s.update(plans="x")), "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_sidecars(bundle: Bundle, damage: str) -> None:
    plant, text = DAMAGE[damage]
    folder = bundle.path / "engines/tensorrt-rtx-fp32-sm86"
    plant(folder)
    with pytest.raises(EdgeAdError, match=text):
        read_sidecar(folder)


def test_a_bundle_that_was_exported_again(bundle: Bundle) -> None:
    changed = add_files(bundle, {"onnx/rgb.onnx": mlp(9, (6, 8, 4), seed=9)[0]})
    with pytest.raises(EdgeAdError, match="rgb was built from a graph with SHA-256"):
        served(changed)


def test_no_engine_yet(bundle: Bundle) -> None:
    with pytest.raises(
        EdgeAdError, match=r"no tensorrt engine in fp32 \(engines: tensorrt-rtx-fp32-sm86\); run: edge-ad"
    ):
        find_engine(bundle, "tensorrt", "fp32", HERE)
