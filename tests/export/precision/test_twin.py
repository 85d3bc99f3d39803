"""The rounding twin: rounds as FP16 does, and shows the overflow that ONNX Runtime hides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.frames import frames_of_bundle
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import add_fp16, base_graphs, twin_bundle
from edge_ad.export.precision.fp16 import cast_fp16
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.overflow import find_overflows
from edge_ad.export.precision.replay import Replay
from edge_ad.export.precision.roles import kept_by_rule
from edge_ad.export.precision.twin import PEAK, rounding_twin, with_peaks
from edge_ad.runtime.detector import Detector
from tests.export.precision.models import block, model, plant_overflow, run

PLANT_AFTER = "attn/qkv/MatMul"


@pytest.fixture
def bundle(tiny_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")


@settings(max_examples=25)
@given(values=st.lists(st.floats(-3e4, 3e4, width=32), min_size=4, max_size=4), factor=st.floats(-2, 2, width=16))
def test_every_operation_is_rounded_to_half(values: list[float], factor: float) -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["m"], name="m"), helper.make_node("Add", ["m", "x"], ["y"], name="a")]
    small = model(nodes, {"k": np.array(factor, np.float32)}, {"x": [4]}, {"y": [4]})
    x = np.array(values, np.float32)
    half, k = x.astype(np.float16).astype(np.float32), np.float32(factor)
    keep = kept_by_rule(Graph(small))
    if keep:  # a factor that half cannot tell from 0
        return
    with np.errstate(over="ignore"):
        step = (half * k).astype(np.float16).astype(np.float32)
        want = (step + half).astype(np.float16).astype(np.float32)
    found = run(rounding_twin(cast_fp16(Graph(small), keep)).onnx, {"x": x})["y"]
    assert np.array_equal(found, want)


def test_a_planted_overflow_is_infinite_in_the_twin_and_nowhere_else() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "up"], ["b"], name="up"),
        helper.make_node("Mul", ["b", "dn"], ["y"], name="d"),
    ]
    weights = {"up": np.array(1e4, np.float32), "dn": np.array(1e-4, np.float32)}
    small = model(nodes, weights, {"x": [2]}, {"y": [2]})
    x = np.array([1.0, 10.0], np.float32)
    assert np.allclose(run(small, {"x": x})["y"], x, rtol=1e-6)
    twin = rounding_twin(cast_fp16(Graph(small), ()))
    assert run(twin.onnx, {"x": x})["y"].tolist() == [pytest.approx(1.0, rel=2e-3), np.inf]
    peaks = run(with_peaks(twin), {"x": x})
    assert peaks[PEAK + "b_exact"] == pytest.approx(1e5)
    assert twin.rounded["b_exact"] == ("up",)


def test_the_twin_of_a_block_differs_from_float32_as_half_does() -> None:
    x = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)
    keep = kept_by_rule(Graph(block()))
    want = run(block(), {"x": x})["y"]
    error = np.abs(run(rounding_twin(cast_fp16(Graph(block()), keep)).onnx, {"x": x})["y"] - want).max()
    assert 1e-5 < error < 1e-2


def test_an_overflow_in_a_bundle_is_found_put_back_and_listed(bundle: Bundle) -> None:
    plant_overflow(bundle.graph_path("points"), PLANT_AFTER)
    planted = Bundle.open(bundle.path, verify=False)
    replay = Replay(planted)
    parts = replay.prepare(frames_of_bundle(planted))
    models = base_graphs(planted)
    want = list(replay.run(parts))
    blind = {g: rounding_twin(cast_fp16(Graph(p, g), kept_by_rule(Graph(p, g))), g).onnx for g, p in models.items()}
    broken = next(replay.run(parts[:1], {g: replay.session(g, m) for g, m in blind.items()}))
    assert not np.isfinite(broken.map).all(), "the planted overflow must show without the search"
    kept = find_overflows(replay, models, parts)
    found = {k.node: k.peak for k in kept if k.why == "overflow"}
    assert {"plant_up2", "plant_down1"} <= set(found)
    assert found["plant_up2"] is not None and found["plant_up2"] > 65504
    assert set(found) <= {"plant_up1", "plant_up2", "plant_down1", "plant_down2"}
    written, listed = add_fp16(planted, replay, parts)
    assert listed == kept
    assert "plant_up2  overflow" in (bundle.path / "precision/fp16.txt").read_text()
    with twin_bundle(written) as twin:
        detector = Detector(twin, threads=1, need_threshold=False)
        for expected, (frame, name) in zip(want, frames_of_bundle(written)):
            scored = detector.score_sample(detector.preprocess(frame, name).samples[0], name)
            assert np.isfinite(scored.map).all()
            assert np.corrcoef(scored.map.ravel(), expected.map.ravel())[0, 1] > 0.999


def test_without_an_overflow_only_the_rule_keeps_nodes(bundle: Bundle) -> None:
    replay = Replay(bundle)
    kept = find_overflows(replay, base_graphs(bundle), replay.prepare(frames_of_bundle(bundle)))
    assert {k.why for k in kept} - {"level"} == {"LayerNorm", "residual", "distance", "standardisation"}
    assert all(k.peak is None for k in kept)


def test_no_usable_frame_is_refused(bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="none of the frames could be scored"):
        find_overflows(Replay(bundle), base_graphs(bundle), [])


def test_a_bundle_without_fp16_names_the_command(bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="edge-ad calibrate fp16"), twin_bundle(bundle):
        pass
