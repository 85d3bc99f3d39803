"""The golden frames through right and wrong graphs: what passes, and what is caught in which precision."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge_ad.bundle import Bundle, Threshold, open_bundle
from edge_ad.bundle.manifest import manifest_from_dict, seal
from edge_ad.engines import build_engines
from edge_ad.engines.compare import GRAPHS, load_sessions
from edge_ad.engines.cost import measure_cost, read_cost, write_cost
from edge_ad.engines.examine import GateReport, examine
from edge_ad.engines.tolerances import TOLERANCES
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256, write_json
from edge_ad.runtime.backends import Session
from tests.engines.wrong_graphs import Served, changed, halved, linear_weights, load, noise


@pytest.fixture(scope="module")
def bundle(tiny_export: Path) -> Bundle:
    return open_bundle(tiny_export)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, Session]:
    return load_sessions(bundle, "onnxruntime", "fp32", 1)


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


def _faults(report: GateReport) -> list[str]:
    """All but the overlap of the masks: these have some forty pixels here, and one of them is more than 2 %."""
    assert report.mask_iou > 0.9
    return [f for f in report.faults if not f.startswith("masks overlap")]


@pytest.mark.parametrize(("graph", "block"), ENCODER_BLOCKS)
def test_noise_on_one_block_is_caught_in_fp16(
    bundle: Bundle, reference: dict[str, Session], graph: str, block: str, tmp_path: Path
) -> None:
    """The rounding twin alone passes; with 5 % noise on one block it does not, by what the bundle says FP16 costs."""
    model = load(bundle, graph)
    twin = {**reference, graph: Served(halved(model), reference[graph])}
    good = examine(bundle, twin, "tensorrt", "fp16", reference)
    assert _faults(good) == []
    shutil.copytree(bundle.path, tmp_path / "told")
    told = write_cost(open_bundle(tmp_path / "told"), "fp16", measure_cost(bundle, twin))
    assert read_cost(told, "fp16")[graph] == pytest.approx(good.graph_errors[graph], rel=0.01)
    assert _faults(examine(told, twin, "tensorrt", "fp16", reference)) == []
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
    assert report.reference_fault == report.faults[0]
    with pytest.raises(EdgeAdError, match="give another map of golden frame .*; run edge-ad export again"):
        build_engines(opened, "onnxruntime")
    assert not (opened.path / "engines").exists() or not list((opened.path / "engines").glob("onnxruntime-fp32*"))


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
