"""A scene calibrated beside the recordings goes through fit and export into the bundle, and is used there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_ad.bundle import Bundle
from edge_ad.calibration.scene import calibrate_scene
from edge_ad.calibration.scene_files import open_target, write_scene
from edge_ad.data.dataset import open_dataset
from edge_ad.runtime.detector import Detector
from tests.disk import write_parts
from tests.training.tiny import make_frame, tiny_preset


def test_record_calibrate_fit_export_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_ad.export.bundle import export_bundle
    from edge_ad.training.fit import FitOptions, fit
    from edge_ad.training.model_dir import load_model
    from edge_ad.training.trainer import TrainingPlan

    data = write_parts(tmp_path / "data", train=3)
    report = calibrate_scene([make_frame("cookie", i) for i in range(8)])
    write_scene(open_target(data / "cookie"), report)
    dataset = open_dataset(data, "auto", None)
    assert set(dataset.scenes) == {"cookie"}
    plan = TrainingPlan(samples_per_step=3, min_steps=10, checkpoint_every_s=0)
    fit(tiny_preset(), dataset, tmp_path / "model", tmp_path / "cache", FitOptions(plan=plan))
    model = load_model(tmp_path / "model")
    assert model.scenes["cookie"].setup is not None and model.scenes["hex_nut"].setup is None
    bundle = export_bundle(model, tmp_path / "bundle", dataset, golden=1).bundle

    detector = Detector(Bundle.open(bundle.path), threads=1, need_threshold=False, class_name="cookie")
    setup = detector.preprocess.scene_of("cookie").setup
    assert setup is not None and setup.to_json() == report.setup.to_json()

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("a frame waits for RANSAC")

    monkeypatch.setattr("edge_ad.runtime.parts.fit_plane", never)
    stands = detector(make_frame("cookie", 9))
    assert stands.health == "ok" and stands.map is not None
    frame = make_frame("cookie", 9)
    assert frame.depth is not None
    moved = detector(replace(frame, depth=frame.depth + 200))
    assert moved.health == "degraded" and moved.decision != "normal"
    assert "farther" in " ".join(moved.reasons)


def test_what_the_source_says_of_a_frame_degrades_its_result(tiny_export: Path) -> None:
    detector = Detector(Bundle.open(tiny_export), threads=1, need_threshold=False, class_name="cookie")
    well = detector(make_frame("cookie", 1))
    ill = detector(replace(make_frame("cookie", 1), health=("2 equal colour pictures in a row",)))
    assert well.health == "ok" and ill.health == "degraded"
    assert ill.reasons[-1] == "2 equal colour pictures in a row" and ill.decision == "invalid"
    assert ill.score == well.score
