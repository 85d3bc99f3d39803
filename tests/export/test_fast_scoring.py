"""The compiled scoring stage against the literal reference and against the score graph (METHOD section 7)."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle import TensorSpec
from edge_ad.errors import EdgeAdError
from edge_ad.export.graphs import ScoreGraph, score_arrays
from edge_ad.export.token_graph import TokenGraph
from edge_ad.models.detector import ReferenceDetector
from edge_ad.runtime.scoring import class_distances, score_pixels
from edge_ad.runtime.scoring_fast import FastScore
from tests.export.cases import SIZES, Case, TorchScore, close, make


def stage(detector: ReferenceDetector, threads: int = 1) -> FastScore:
    session = TorchScore(ScoreGraph(detector))
    widths = [int(sum(score_arrays(detector)[n])) for n in ("rgb_widths", "point_widths")]
    specs = [
        TensorSpec("rgb_rows", ("rows", widths[0]), "float32"),
        TensorSpec("point_rows", ("rows", widths[1]), "float32"),
    ]
    specs += [TensorSpec("class_index", (1,), "int64")] if detector.mappers.has_text else []
    return FastScore(score_arrays(detector), "test", tuple(specs), session.outputs, threads)


def tables(case: Case) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        rgb, points = TokenGraph(case.detector).eval()(case.rgb, case.points)
    return rgb.numpy(), points.numpy()


@settings(max_examples=40)
@given(**SIZES, hidden=st.sampled_from([6, 9, 24, 40, 70]), threads=st.integers(1, 3))
def test_the_compiled_stage_equals_the_literal_model(
    kind: str, grid: int, ratio: int, groups: int, classes: int, share: float, hidden: int, threads: int, seed: int
) -> None:
    case = make(kind, grid, ratio, groups, classes, share, seed, hidden)
    found = score_pixels(stage(case.detector, threads), *tables(case), case.valid, case.at, case.class_index, text=True)
    close(found, case.reference())


@pytest.mark.parametrize("kind", ["gacm", "cfm"])
def test_the_compiled_stage_equals_the_exported_graph(kind: str) -> None:
    """Rows of any kind, not those of a sample alone, and every block boundary."""
    from edge_ad.export.bundle import trace_graphs

    case = make(kind, 4, 8, 30, 3, 0.6, 8)
    graph = ort.InferenceSession(trace_graphs(case.detector)["score"].onnx, providers=["CPUExecutionProvider"])
    fast = stage(case.detector, 2)
    rng = np.random.default_rng(1)
    for n in (1, 255, 256, 257, 700):
        rows = {
            i.name: rng.normal(size=(n, i.shape[1])).astype(np.float32)
            for i in graph.get_inputs()
            if i.name != "class_index"
        }
        if case.detector.mappers.has_text:
            rows["class_index"] = np.array([1], dtype=np.int64)
        expected = dict(zip([o.name for o in graph.get_outputs()], graph.run(None, rows)))
        found = fast.run(rows)
        assert list(found) == list(expected)
        for name, want in expected.items():
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], want, rtol=2e-6, atol=1e-6, err_msg=f"{name}, {n} rows")


def test_pixels_classes_and_terms_can_be_chosen() -> None:
    case = make("gacm", 5, 4, 20, 4, 0.5, 3)
    fast, at = stage(case.detector), (*tables(case), case.valid, case.at)
    whole = score_pixels(fast, *at, 2)
    some = np.array([0, 3, int(case.valid.sum()) - 1])
    part = score_pixels(fast, *at, 2, rows=some)
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][some], rtol=1e-5, atol=1e-7)
    without = score_pixels(fast, *at, 2, text=False)
    assert set(without) == {"rgb", "3d"}
    np.testing.assert_array_equal(without["rgb"], whole["rgb"])
    means = class_distances(fast, *at, 4, some)
    graph = class_distances(TorchScore(ScoreGraph(case.detector)), *at, 4, some)
    assert means.shape == (4,) and means.dtype == np.float64
    np.testing.assert_allclose(means, graph, rtol=1e-5)
    assert float(np.ptp(means)) > 1e-3


def test_without_text_no_class_is_nearest() -> None:
    case = make("cfm", 3, 4, 10, 2, 0.5, 3)
    assert np.isnan(class_distances(stage(case.detector), *tables(case), case.valid, case.at, 2)).all()


def test_a_pixel_that_is_not_a_number_stays_one() -> None:
    case = make("gacm", 3, 4, 10, 2, 1.0, 3)
    rgb, points = tables(case)
    rgb = rgb.copy()
    rgb[8] = np.nan  # the last of 3 x 3 tokens
    found = score_pixels(stage(case.detector), rgb, points, case.valid, case.at, 0)
    for name in ("rgb", "3d", "text_rgb"):
        assert np.isnan(found[name].reshape(12, 12)[9:, 9:]).all(), name
        assert np.isfinite(found[name][0]), name
    assert np.isfinite(found["text_3d"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rgb.weight": None}, "'rgb.weight' is missing"),
        ({"text_3d.anchors": np.zeros((2, 3), np.float32)}, r"'text_3d.anchors' has shape \(2, 3\)"),
        ({"gacm.bias": np.zeros(5, np.float32)}, r"'gacm.bias' has shape \(5,\)"),
        ({"rgb_widths": np.array([24])}, "column blocks"),
    ],
)
def test_damaged_weights_are_refused(change: dict[str, np.ndarray | None], message: str) -> None:
    detector = make("gacm", 3, 4, 10, 2, 1.0, 3).detector
    arrays = {k: v for k, v in {**score_arrays(detector), **change}.items() if v is not None}
    outputs = tuple(TensorSpec(n, ("rows",), "float32") for n in ("rgb", "3d", "text_rgb", "text_3d"))
    with pytest.raises(EdgeAdError, match=message):
        FastScore(arrays, "score.npz", (), outputs)
    with pytest.raises(EdgeAdError, match="0 threads"):
        FastScore(score_arrays(detector), "score.npz", (), outputs, threads=0)
    with pytest.raises(EdgeAdError, match="has the terms"):
        FastScore(score_arrays(detector), "score.npz", (), outputs[:2])


def test_a_table_of_another_width_is_refused() -> None:
    case = make("gacm", 3, 4, 10, 2, 1.0, 3)
    rgb, points = tables(case)
    with pytest.raises(EdgeAdError, match="a rgb table of shape"):
        score_pixels(stage(case.detector), rgb[:, 1:], points, case.valid, case.at, 0)
