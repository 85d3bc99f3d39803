"""The whole export: four checked graphs, golden frames, constants, and that a bundle is there whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge_ad.bundle import Bundle, Threshold
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.export import bundle as export
from edge_ad.export.bundle import compare, export_bundle, golden_frames, trace_graphs
from edge_ad.export.golden import make_golden, plant_defect
from edge_ad.export.trace import trace
from edge_ad.frame import Frame
from edge_ad.runtime.geometry import frame_xyz
from edge_ad.training.model_dir import LoadedModel, load_model
from tests.killed import run_until_killed
from tests.training.tiny import make_frame, tiny_dataset


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def bundle(tiny_export: Path) -> Bundle:
    return Bundle.open(tiny_export)


def graph(bundle: Bundle, name: str) -> onnx.ModelProto:
    return onnx.load(str(bundle.graph_path(name)))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def test_the_bundle_holds_what_the_model_is(bundle: Bundle, model: LoadedModel) -> None:
    assert bundle.class_names == model.class_names
    assert bundle.points_scale_m == model.points_scale_m
    assert bundle.preset == model.preset
    np.testing.assert_allclose(bundle.balance, model.detector.balance.numpy(), rtol=1e-6)
    assert set(bundle.manifest.graphs) == {"rgb", "points", "tokens", "score"}
    assert bundle.manifest.thresholds == {}
    assert bundle.graph("score").meta["rows"] == {"min": 1, "opt": 4096, "max": 64 * 64}
    for name in ("rgb", "points", "tokens", "score"):
        loaded = graph(bundle, name)
        onnx.checker.check_model(loaded, full_check=True)
        assert {o.version for o in loaded.opset_import if o.domain in ("", "ai.onnx")} == {17}


def test_layer_normalisation_is_one_node_each(bundle: Bundle, model: LoadedModel) -> None:
    for name, uses in (("points", 2 * 2 + 2), ("score", 1), ("tokens", 0), ("rgb", 0)):
        kinds = [n.op_type for n in graph(bundle, name).graph.node]
        assert kinds.count("LayerNormalization") == uses, name  # two a block, and the final norm once a tap
        assert "ReduceMean" not in kinds or name == "rgb"


def test_a_layer_norm_in_pieces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pieces(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            centred = x - x.mean(-1, keepdim=True)
            return centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias

    with pytest.raises(EdgeAdError, match="0 LayerNormalization nodes; expected one for each of 1"):
        trace(Pieces(8), [torch.randn(4, 8)], ["x"], ["y"])


def test_anchors_are_constants_of_the_score_graph(bundle: Bundle, model: LoadedModel) -> None:
    anchors = torch.nn.functional.normalize(model.detector.anchors, dim=1).numpy()
    assert bundle.anchors is not None
    np.testing.assert_allclose(bundle.anchors, anchors, atol=1e-7)
    score = graph(bundle, "score")
    assert [i.name for i in score.graph.input] == ["rgb_rows", "point_rows", "class_index"]
    baked = [v for v in constants(score).values() if v.shape == anchors.shape]
    assert any(np.allclose(v, anchors, atol=1e-6) for v in baked)
    before = trace_graphs(model.detector)
    kept = model.detector.anchors.clone()
    try:
        model.detector.anchors[1] += 1
        after = trace_graphs(model.detector)
    finally:
        model.detector.anchors.copy_(kept)
    assert before["score"].onnx != after["score"].onnx
    for name in ("rgb", "points", "tokens"):
        assert before[name].onnx == after[name].onnx, name


def test_golden_frames_are_half_with_a_defect_and_the_runtime_gives_the_references_answer(bundle: Bundle) -> None:
    golden = bundle.golden()
    assert sum(g.defect for g in golden) * 2 == len(golden) >= 4
    assert {g.class_name for g in golden} == set(bundle.class_names)
    worst_map, worst_score = compare(bundle, golden)
    assert worst_map <= 1e-4 and worst_score <= 1e-4
    by_name = {g.name: g for g in golden}
    for name, g in by_name.items():
        if g.defect:
            good = by_name[name.replace("defect", "good")]
            assert (g.frame.colour != good.frame.colour).any() and (g.map != good.map).any()


def test_a_planted_defect_shows_in_both_modalities() -> None:
    frame = make_frame("cookie", 1)
    assert frame.depth is not None
    part = frame.depth < 3950
    part[2:5, 2:5] = False
    planted = plant_defect(frame, part, seed=3)
    assert planted.depth is not None
    colour = (planted.colour != frame.colour).any(axis=2)
    nearer = planted.depth.astype(int) < frame.depth.astype(int)
    assert colour.sum() > 20 and nearer.sum() > 20
    assert not (nearer & ~colour).any() and (colour & part).any()
    cloud = Frame(frame.colour, xyz=frame_xyz(frame))
    moved = plant_defect(cloud, part, seed=3)
    assert moved.xyz is not None and cloud.xyz is not None
    closer = moved.xyz[..., 2] < cloud.xyz[..., 2]
    assert (closer == nearer).mean() > 0.99
    # Along the ray: the pixel stays where it was.
    known = cloud.xyz[..., 2] > 0
    np.testing.assert_allclose(
        (moved.xyz[..., 0] / np.maximum(moved.xyz[..., 2], 1e-6))[known],
        (cloud.xyz[..., 0] / np.maximum(cloud.xyz[..., 2], 1e-6))[known],
        atol=1e-6,
    )


def test_frames_that_cannot_be_used_are_left_out_of_the_golden_ones(model: LoadedModel) -> None:
    frames = [(make_frame("cookie", -1), "cookie"), (make_frame("cookie", 1), "cookie")]
    args = (model.detector, model.preprocessor(), model.class_names, model.points_scale_m)
    assert [g.name for g in make_golden(frames, *args)] == ["01_good", "01_defect"]
    with pytest.raises(EdgeAdError, match="no golden frame could be made"):
        make_golden(frames[:1], *args)


def test_golden_frames_are_spread_over_the_classes_and_held_out() -> None:
    data = tiny_dataset({"hex_nut": (4, 1), "cookie": (4, 3)})
    chosen = golden_frames(data, ("hex_nut", "cookie"), 4)
    assert [(c, f.name) for f, c in chosen] == [
        ("hex_nut", "hex_nut/4"), ("cookie", "cookie/4"), ("cookie", "cookie/5"), ("cookie", "cookie/6")
    ]  # fmt: skip

    def fail() -> Frame:
        raise InvalidFrame("broken")

    broken = replace(data, items=tuple(replace(i, read_frame=fail) for i in data.items))
    with pytest.raises(EdgeAdError, match="no good frame of cookie"):
        golden_frames(broken, ("cookie",), 2)


def test_a_bundle_that_differs_from_the_reference_is_not_written(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(EdgeAdError, match="differs from the reference by .* no bundle was written"):
        export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_graph_is_noticed(model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate sees a wrong weight, not only a tolerance of 0."""
    traced = trace_graphs(model.detector)
    kept = model.detector.mappers.points_to_rgb.fc2.bias.detach().clone()
    try:
        with torch.no_grad():
            model.detector.mappers.points_to_rgb.fc2.bias += 0.05
        wrong = trace_graphs(model.detector)["score"]
    finally:
        with torch.no_grad():
            model.detector.mappers.points_to_rgb.fc2.bias.copy_(kept)
    monkeypatch.setattr(export, "trace_graphs", lambda _: {**traced, "score": wrong})
    with pytest.raises(EdgeAdError, match="differs from the reference"):
        export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_when_asked_and_only_by_a_whole_one(
    model: LoadedModel, tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_export, tmp_path / "b")
    limit = Threshold(1.0, 1.0, 20, 0.05, "2025-01-01T00:00:00+00:00")
    Bundle.open(tmp_path / "b").with_thresholds({"cookie": limit}, "fp32")
    with pytest.raises(EdgeAdError, match="exists already"):
        export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1)
    with monkeypatch.context() as m:
        m.setattr(export, "TOLERANCE", 0.0)
        with pytest.raises(EdgeAdError, match="no bundle was written"):
            export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1, replace=True)
    assert Bundle.open(tmp_path / "b").threshold("cookie", "fp32") == limit
    report = export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1, replace=True)
    assert report.bundle.threshold("cookie", "fp32") is None
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    report.bundle.verify()


KILLED = """
import sys
from pathlib import Path
import edge_ad.export.bundle as export
from edge_ad.training.model_dir import load_model
from tests.training.tiny import tiny_dataset

export.compare = lambda *_: kill()
export.export_bundle(load_model(sys.argv[1]), Path(sys.argv[2]), tiny_dataset(), golden=1, replace=True)
"""


def test_a_killed_export_leaves_no_bundle_and_the_next_one_clears_up(
    model: LoadedModel, tiny_model: Path, tmp_path: Path
) -> None:
    run_until_killed(KILLED, tiny_model, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert [p.name.startswith(".b.") for p in tmp_path.iterdir()] == [True]
    export_bundle(model, tmp_path / "b", tiny_dataset(), golden=1)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_scenes_travel_with_the_bundle(model: LoadedModel, tmp_path: Path) -> None:
    from edge_ad.runtime.preprocess import Scene

    roi = np.zeros((60, 72), bool)
    roi[3:57, 4:70] = True
    seen = replace(model, scenes={"cookie": Scene(roi=roi, expected_depth=~roi)})
    bundle = export_bundle(seen, tmp_path / "b", tiny_dataset(), golden=1).bundle
    scene = bundle.scene("cookie")
    assert scene is not None
    np.testing.assert_array_equal(scene["roi"], roi)
    np.testing.assert_array_equal(scene["expected_depth"], ~roi)
    assert bundle.scene("hex_nut") is None
