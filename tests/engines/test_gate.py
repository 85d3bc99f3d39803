"""The golden gate: what passes, what it catches, and that a pass is bound to all that it depends on.

ONNX Runtime stands for the engine: a graph whose weights were changed is what a miscompiled engine looks like.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_ad.bundle import Bundle, Threshold, open_bundle
from edge_ad.bundle.manifest import manifest_from_dict, seal
from edge_ad.engines import build, build_engines, gate, trt
from edge_ad.engines.compare import GRAPHS, load_sessions
from edge_ad.engines.cost import measure_cost, read_cost, write_cost
from edge_ad.engines.gate import ensure, examine
from edge_ad.engines.passes import fingerprint, record_path, remembered
from edge_ad.engines.tolerances import TOLERANCES
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256, write_json
from edge_ad.runtime.backends import Session
from edge_ad.runtime.detector import Detector, load_detector
from tests.engines import fake_gpu

pytestmark = pytest.mark.usefixtures("no_kernels")


@pytest.fixture(scope="module")
def bundle(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("gate") / "bundle"
    shutil.copytree(tiny_export, path)
    return open_bundle(path)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, Session]:
    return load_sessions(bundle, "onnxruntime", "fp32", 1)


class Served:
    """A model in ONNX Runtime, as an engine's session."""

    def __init__(self, model: onnx.ModelProto, like: Session) -> None:
        self.inputs, self.outputs = like.inputs, like.outputs
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        names = [o.name for o in self.outputs]
        return dict(zip(names, self._session.run(names, inputs)))


def linear_weights(model: onnx.ModelProto, block: str) -> list[str]:
    """Initialisers of the Linears (MatMul, Gemm, Conv) of one block; a fused Gemm is found by what it feeds."""
    weights = {t.name for t in model.graph.initializer if len(t.dims) >= 2}
    first = next(i for i, n in enumerate(model.graph.node) if block in n.name)
    last = max(i for i, n in enumerate(model.graph.node) if block in n.name)
    nodes = model.graph.node[first : last + 1]
    return [i for n in nodes if n.op_type in ("MatMul", "Gemm", "Conv") for i in n.input if i in weights]


def changed(model: onnx.ModelProto, names: list[str], change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            array = change(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def noise(array: np.ndarray) -> np.ndarray:
    return array * (1 + 0.05 * np.random.default_rng(array.size).standard_normal(array.shape))


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A rounding twin: weights and what every node gives go through float16 (LayerNorm and shapes apart)."""
    twin = changed(model, [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT], _half)
    nodes = []
    for node in twin.graph.node:
        nodes.append(node)
        if node.op_type in ("LayerNormalization", "Shape", "Constant", "Cast", "Split", "Gather", "Slice"):
            continue
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}.exact"
            nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.half"], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    del twin.graph.node[:], twin.graph.value_info[:]
    twin.graph.node.extend(nodes)
    return twin


def _half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def load(bundle: Bundle, graph: str) -> onnx.ModelProto:
    return onnx.load(str(bundle.graph_path(graph)))


ENCODER_BLOCKS = [("rgb", "_blocks.1/"), ("points", "blocks.0/"), ("points", "blocks.1/")]


def test_the_reference_passes_against_itself(bundle: Bundle, reference: dict[str, Session]) -> None:
    report = examine(bundle, reference, "tensorrt", "fp32", reference)
    assert report.passed and report.graph_errors == dict.fromkeys(GRAPHS, 0.0) and report.anchor_error == 0.0
    assert {f.defect for f in report.frames} == {True, False}
    assert max(f.map_difference for f in report.frames) < 1e-4
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


@pytest.mark.parametrize(("graph", "block"), ENCODER_BLOCKS)
def test_noise_on_one_block_is_caught_in_fp32(
    bundle: Bundle, reference: dict[str, Session], graph: str, block: str
) -> None:
    model = load(bundle, graph)
    names = linear_weights(model, block)
    assert names
    bad = {**reference, graph: Served(changed(model, names, noise), reference[graph])}
    report = examine(bundle, bad, "tensorrt", "fp32", reference)
    assert not report.passed and any(f.startswith(f"graph {graph} differs") for f in report.faults)
    assert all(report.graph_errors[g] == 0 for g in GRAPHS if g != graph)


@pytest.mark.parametrize(("graph", "block"), ENCODER_BLOCKS)
def test_noise_on_one_block_is_caught_in_fp16(
    bundle: Bundle, reference: dict[str, Session], graph: str, block: str, tmp_path: Path
) -> None:
    """The rounding twin alone passes; with 5 % noise on one block it does not, by what the bundle says FP16 costs."""
    model = load(bundle, graph)
    twin = {**reference, graph: Served(halved(model), reference[graph])}
    good = examine(bundle, twin, "tensorrt", "fp16", reference)
    assert good.passed, good.faults
    shutil.copytree(bundle.path, tmp_path / "told")
    told = write_cost(open_bundle(tmp_path / "told"), "fp16", measure_cost(bundle, twin))
    assert read_cost(told, "fp16")[graph] == pytest.approx(good.graph_errors[graph], rel=0.01)
    assert examine(told, twin, "tensorrt", "fp16", reference).passed
    noisy = halved(changed(model, linear_weights(model, block), noise))
    bad = {**reference, graph: Served(noisy, reference[graph])}
    report = examine(told, bad, "tensorrt", "fp16", reference)
    assert any(f.startswith(f"graph {graph} differs") for f in report.faults), report.graph_errors


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize(("graph", "block"), [("rgb", "_blocks.1/"), ("points", "blocks.0/")])
def test_a_zeroed_block_is_caught_in_every_precision(
    bundle: Bundle, reference: dict[str, Session], graph: str, block: str, precision: str
) -> None:
    model = load(bundle, graph)
    zeroed = changed(model, linear_weights(model, block), np.zeros_like)
    report = examine(bundle, {**reference, graph: Served(zeroed, reference[graph])}, "tensorrt", precision, reference)
    assert not report.passed


def test_nan_is_caught(bundle: Bundle, reference: dict[str, Session]) -> None:
    model = load(bundle, "rgb")
    broken = changed(model, linear_weights(model, "_blocks.1/")[:1], lambda a: np.full_like(a, np.nan))
    report = examine(bundle, {**reference, "rgb": Served(broken, reference["rgb"])}, "tensorrt", "int8", reference)
    assert not report.passed and report.graph_errors["rgb"] == float("inf")


def test_swapped_anchors_are_caught(bundle: Bundle, reference: dict[str, Session]) -> None:
    """The anchors baked into the score graph in another order: each class gets another's text distance."""

    class Swapped:
        inputs, outputs = reference["score"].inputs, reference["score"].outputs

        def run(self, inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
            other = {**inputs, "class_index": 1 - inputs["class_index"]}
            return reference["score"].run(other)

    report = examine(bundle, {**reference, "score": Swapped()}, "tensorrt", "fp16", reference)
    assert any("its anchor is not baked in" in f for f in report.faults)


def test_every_class_has_its_own_anchor(bundle: Bundle, reference: dict[str, Session]) -> None:
    """Baked anchors: the score graph's text distance of class c is that to row c of ``anchors.npz``."""
    rng = np.random.default_rng(0)
    rows = {
        i.name: rng.standard_normal((5, int(i.shape[1]))).astype(np.float32)
        for i in reference["score"].inputs
        if i.name != "class_index"
    }
    assert bundle.anchors is not None
    answers = [
        reference["score"].run({**rows, "class_index": np.array([c], np.int64)}) for c in range(len(bundle.classes))
    ]
    for name in ("text_rgb", "text_3d"):
        # |a_c - v|^2 = 2 - 2 a_c v: differences between classes are linear in the anchors, whatever v is.
        squared = np.stack([a[name].astype(np.float64) ** 2 for a in answers])
        apart = bundle.anchors[0].astype(np.float64) - bundle.anchors[1].astype(np.float64)
        assert np.all(np.abs(squared[0] - squared[1]) <= 2 * np.linalg.norm(apart) + 1e-6)
        assert np.abs(squared[0] - squared[1]).max() > 1e-6


def test_no_bundle_holds_a_text_encoder(bundle: Bundle) -> None:
    assert set(bundle.manifest.graphs) == set(GRAPHS)
    assert not [f for f in bundle.manifest.files if "text" in f.lower() or f.endswith((".safetensors", ".pt", ".txt"))]
    for graph in GRAPHS:
        model = load(bundle, graph)
        # A vocabulary's embedding is the one array of tens of thousands of rows that any text encoder has.
        assert all(max(t.dims, default=0) < 20000 or len(t.dims) < 2 for t in model.graph.initializer)
        assert not [i.name for i in model.graph.input if "token_ids" in i.name or "text" in i.name]


def test_decisions_follow_the_precision_and_may_not_flip(bundle: Bundle, reference: dict[str, Session]) -> None:
    golden = bundle.golden()
    good = {g.class_name: g.score for g in golden if not g.defect}

    def with_limits(**by_precision: float) -> Bundle:
        merged: dict[str, dict[str, dict[str, Threshold]]] = {c: {"base": {}} for c in good}
        for precision, factor in by_precision.items():
            for c, s in good.items():
                merged[c]["base"][precision] = Threshold(s * factor, s * factor, 20, 0.05, "2025-01-01")
        return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, thresholds=merged))

    assert not any(f.flipped for f in examine(with_limits(fp32=1.5), reference, "x", "fp16", reference).frames)
    flipped = examine(with_limits(fp32=1.5, fp16=0.5), reference, "x", "fp16", reference)
    assert [f.name for f in flipped.frames if f.flipped and not f.defect]
    assert any("the decision flips on" in f for f in flipped.faults)
    # On the limit itself a rounding decides: that is no flip.
    assert not any(
        f.flipped for f in examine(with_limits(fp32=1.0, fp16=0.995), reference, "x", "fp16", reference).frames
    )


def test_hashes_recomputed_do_not_help(tiny_export: Path, tmp_path: Path) -> None:
    """5 % noise in the bundle's own float32 graph, its manifest sealed anew: the golden maps still know."""
    shutil.copytree(tiny_export, tmp_path / "b")
    values = read_json(tmp_path / "b/manifest.json")
    path = tmp_path / "b/onnx/rgb.onnx"
    model = onnx.load(str(path))
    onnx.save(changed(model, linear_weights(model, "_blocks.1/"), noise), str(path))
    values["files"]["onnx/rgb.onnx"] = sha256(path)
    write_json(tmp_path / "b/manifest.json", seal(manifest_from_dict(values, "b").to_dict()))
    opened = open_bundle(tmp_path / "b")
    sessions = load_sessions(opened, "onnxruntime", "fp32", 1)
    report = examine(opened, sessions, "tensorrt", "fp32", sessions)
    assert report.faults[0].startswith("the bundle's own float32 graphs differ from its golden maps")


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

    def watched(*args: object, **kwargs: object) -> gate.GateReport:
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


def test_the_reference_itself_is_not_asked(bundle: Bundle) -> None:
    assert ensure(Detector(bundle, need_threshold=False), "onnxruntime") is None
    assert not record_path(bundle, "onnxruntime", "fp32").exists()


def test_what_cannot_be_gated(bundle: Bundle, reference: dict[str, Session]) -> None:
    with pytest.raises(EdgeAdError, match="precision 'fp4' has no tolerances; expected one of fp32, fp16, bf16, int8"):
        examine(bundle, reference, "tensorrt", "fp4", reference)
    files = {n: h for n, h in bundle.manifest.files.items() if not n.startswith("golden/")}
    none = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))
    with pytest.raises(EdgeAdError, match="has no golden frames.*edge-ad export"):
        examine(none, reference, "tensorrt", "fp32", reference)


def test_tolerances_grow_with_the_precision() -> None:
    order = [TOLERANCES[p] for p in ("fp32", "fp16", "bf16", "int8")]
    for a, b in zip(order, order[1:]):
        assert a.correlation > b.correlation and a.mask_iou > b.mask_iou and a.graph_error < b.graph_error
