"""The golden gate on a device: when it asks, what it refuses, and that a pass is bound to all that it depends on.

ONNX Runtime stands for the engine: a graph whose weights were changed is what a miscompiled engine looks like.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_ad.bundle import Bundle, Threshold, add_files, open_bundle
from edge_ad.engines import build, build_engines, gate, trt
from edge_ad.engines.compare import GRAPHS
from edge_ad.engines.examine import GateReport
from edge_ad.engines.gate import ensure
from edge_ad.engines.passes import fingerprint, record_path, remembered
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.load import load_detector
from tests.engines import fake_gpu
from tests.engines.wrong_graphs import changed, linear_weights, load, noise

pytestmark = pytest.mark.usefixtures("no_kernels")


@pytest.fixture(scope="module")
def bundle(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("gate") / "bundle"
    shutil.copytree(tiny_export, path)
    return open_bundle(path)


@pytest.fixture
def gpu(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bundle, object]:
    """A copy of the bundle with limits, on a stand-in for a GPU with TensorRT."""
    shutil.copytree(bundle.path, tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle")
    limit = Threshold(1e6, 1e6, 20, 0.05, "2025-01-01")
    opened = opened.with_thresholds(dict.fromkeys(opened.class_names, limit), "fp32")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _, module = fake_gpu.install(monkeypatch, opened.path / "onnx", set(), "tensorrt", "10.13.0.35")
    return opened, module


def test_built_on_its_device_an_engine_is_gated_at_once(gpu: tuple[Bundle, object]) -> None:
    bundle, _ = gpu
    said: list[str] = []
    build_engines(bundle, "tensorrt", progress=said.append)
    assert any(s.startswith("golden frames: holding tensorrt in fp32") for s in said)
    assert len(remembered(record_path(bundle, "tensorrt", "fp32"))) == 1


def test_a_miscompiled_engine_is_refused_and_taken_away(
    gpu: tuple[Bundle, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _ = gpu
    bad = tmp_path / "bad.onnx"
    model = load(bundle, "points")
    onnx.save(changed(model, linear_weights(model, "blocks.0/"), np.zeros_like), str(bad))
    real = trt.build_plan

    def miscompile(backend: str, path: Path, *args: object, **kwargs: object) -> trt.Plan:
        plan = real(backend, path, *args, **kwargs)  # type: ignore[arg-type]
        return dataclasses.replace(plan, data=str(bad).encode()) if path.stem == "points" else plan

    monkeypatch.setattr(build.trt, "build_plan", miscompile)
    with pytest.raises(EdgeAdError, match="does not answer the golden frames.*graph points differs") as e:
        build_engines(bundle, "tensorrt")
    assert "\n" not in str(e.value) and "edge-ad verify" in str(e.value)
    assert not list((bundle.path / "engines").glob("tensorrt-fp32*"))
    open_bundle(bundle.path)
    assert load_detector(bundle.path).bundle.class_names == bundle.class_names


def test_first_load_asks_and_remembers(
    gpu: tuple[Bundle, object], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, _ = gpu
    build_engines(bundle, "tensorrt")
    record = record_path(bundle, "tensorrt", "fp32")
    record.unlink()
    asked: list[str] = []
    real = gate.examine
    monkeypatch.setattr(gate, "examine", lambda *a, **k: (asked.append("asked"), real(*a, **k))[1])
    with caplog.at_level(logging.INFO, "edge_ad"):
        load_detector(bundle.path, "tensorrt")
    assert asked == ["asked"] and "holding tensorrt in fp32" in caplog.text
    load_detector(bundle.path, "tensorrt")
    assert asked == ["asked"], "a pass is remembered"
    record.write_text("{")
    load_detector(bundle.path, "tensorrt")
    assert len(asked) == 2, "a damaged record is no pass"
    limit = Threshold(2e6, 2e6, 20, 0.05, "2025-01-02")
    open_bundle(bundle.path).with_thresholds(dict.fromkeys(bundle.class_names, limit), "fp32")
    load_detector(bundle.path, "tensorrt")
    assert len(asked) == 3, "other limits are asked anew"


def test_a_pass_is_bound_to_device_engine_and_files(
    gpu: tuple[Bundle, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.runtime import cuda

    bundle, _ = gpu
    build_engines(bundle, "tensorrt")
    first = fingerprint(bundle, "tensorrt", "fp32")
    assert fingerprint(bundle, "tensorrt", "fp32") == first
    assert fingerprint(bundle, "tensorrt", "fp16") != first
    sidecar = bundle.path / "engines/tensorrt-fp32-sm86/sidecar.json"
    text = sidecar.read_text()
    sidecar.write_text(text + " ")
    assert fingerprint(bundle, "tensorrt", "fp32") != first
    sidecar.write_text(text)
    monkeypatch.setattr(cuda, "find_device", lambda: cuda.Device("Other GPU", (8, 6), 8 << 30))
    assert fingerprint(bundle, "tensorrt", "fp32") != first


@pytest.mark.parametrize("fault", [False, True])
def test_the_device_pipelines_own_maps_are_asked(
    gpu: tuple[Bundle, object], monkeypatch: pytest.MonkeyPatch, fault: bool
) -> None:
    """Where maps are made on another way than graph after graph, that way is held against the golden maps."""
    bundle, _ = gpu
    build_engines(bundle, "tensorrt")

    class DeviceDetector(Detector):
        """Plans without ``run``, and a map of its own making."""

        def score_sample(self, sample, class_name="auto", watch=None):  # type: ignore[no-untyped-def]
            scored = super().score_sample(sample, class_name, watch)
            return dataclasses.replace(scored, map=np.roll(scored.map, 3, axis=0)) if fault else scored

    detector = DeviceDetector(bundle, "tensorrt", need_threshold=False)
    plans = detector.sessions
    asked: list[object] = []
    real = gate.examine

    def watched(*args: object, **kwargs: object) -> GateReport:
        detector.sessions = plans
        asked.append(kwargs["whole"])
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(gate, "examine", watched)
    detector.sessions = dict.fromkeys(GRAPHS, object())  # type: ignore[arg-type]
    if fault:
        with pytest.raises(EdgeAdError, match="map of .* differs by"):
            ensure(detector, "tensorrt")
    else:
        report = ensure(detector, "tensorrt")
        assert report is not None and report.passed
    assert asked and asked[0] is not None


def test_the_reference_is_held_against_its_golden_maps_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Bundle] = []
    real = gate.check_reference
    monkeypatch.setattr(gate, "check_reference", lambda b, sessions: asked.append(b) or real(b, sessions))
    detector = Detector(bundle, need_threshold=False)
    assert ensure(detector, "onnxruntime") is None
    assert len(asked) == 1 and len(remembered(record_path(bundle, "onnxruntime", "fp32"))) == 1
    ensure(detector, "onnxruntime")
    ensure(Detector(bundle.as_variant("base", 2), need_threshold=False), "onnxruntime")
    assert len(asked) == 1
    ensure(detector, "onnxruntime", again=True)
    assert len(asked) == 2


def test_a_float32_graph_with_other_weights_and_a_true_hash_is_refused(bundle: Bundle) -> None:
    model = onnx.load(bundle.path / "onnx/points.onnx")
    noisy = changed(model, linear_weights(model, "blocks.0"), noise)
    other = add_files(bundle, {"onnx/points.onnx": noisy.SerializeToString()})
    with pytest.raises(EdgeAdError, match="its float32 graphs give another map of golden frame .*edge-ad export again"):
        ensure(Detector(other, need_threshold=False), "onnxruntime")
    add_files(bundle, {"onnx/points.onnx": model.SerializeToString()})
