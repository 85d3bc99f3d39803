"""INT8 and FP16 of a whole bundle: calibrate, measure, write, run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad.bundle import Bundle, Threshold, pack
from edge_ad.calibration.int8.calibrate import apply_table, calibrate_int8
from edge_ad.calibration.int8.frames import frames_of_bundle
from edge_ad.calibration.int8.table import parse_table, read_table
from edge_ad.calibration.limits import calibrate
from edge_ad.cli.main import main
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import twin_bundle
from edge_ad.export.precision.replay import Replay
from edge_ad.runtime.detector import Detector
from tests.calibration.int8.parts import frames
from tests.training.tiny import tiny_dataset


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_int8_runs_like_float32_and_its_table_makes_it_again(bundle: Bundle) -> None:
    report = calibrate_int8(bundle, frames(), "frames", method="mse")
    assert bundle.precisions == ("fp32",) and report.bundle.precisions == ("fp32", "int8")
    written = Bundle.open(bundle.path)  # every hash is checked
    full = Detector(written, precision="fp32", threads=1, need_threshold=False)
    small = Detector(written, precision="int8", threads=1, need_threshold=False)
    for frame, name in frames(2):
        a, b = (d.score_sample(d.preprocess(frame, name).samples[0], name) for d in (full, small))
        assert correlation(a.map, b.map) > 0.97
        assert not np.array_equal(a.map, b.map), "nothing was quantised"
    table = read_table(written.path / "precision/int8.txt")
    assert table == report.table and table.about["method"] == "mse" and table.about["frames"] == "8"
    assert set(table.graphs) == set(written.manifest.graphs)
    assert report.warnings == () and "INT8 MB" in report.text()
    before = {g: written.graph_path(g, "int8").read_bytes() for g in written.manifest.graphs}
    again = apply_table(written, table, "table")
    assert {g: again.bundle.graph_path(g, "int8").read_bytes() for g in before} == before


def test_the_twin_of_a_bundle_scores_by_its_own_score_graph(bundle: Bundle) -> None:
    from edge_ad.export.precision.assemble import add_fp16

    replay = Replay(bundle)
    written, _ = add_fp16(bundle, replay, replay.prepare(frames_of_bundle(bundle)))
    with twin_bundle(written) as twin:
        assert twin.path != written.path
        detector = Detector(twin, threads=1, need_threshold=False)
        assert type(detector.sessions["score"]).__name__ == "OnnxSession"
        frame, name = frames(1)[0]
        found = detector.score_sample(detector.preprocess(frame, name).samples[0], name)
    full = Detector(written, threads=1, need_threshold=False)
    want = full.score_sample(full.preprocess(frame, name).samples[0], name)
    assert 0 < np.abs(found.map - want.map).max() < 0.05 * want.map.max()


def test_a_line_changed_by_hand_is_obeyed(bundle: Bundle) -> None:
    report = calibrate_int8(bundle, frames(2), "frames", method="minmax", every_layer=True)
    row = next(r for r in report.table.rows if r.graph == "points")
    text = report.table.to_text()
    line = next(x for x in text.splitlines() if x.startswith("points") and f" {row.layer} " in x)
    changed = parse_table(text.replace(line, line.replace("int8", "fp16")), "changed")
    applied = apply_table(report.bundle, changed, "changed")
    assert row.layer not in applied.table.ranges("points")
    before, after = ((report.bundle.path / "onnx/int8/points.onnx"), applied.bundle.graph_path("points", "int8"))
    assert before == after and b"DQ:" in after.read_bytes()
    assert len(applied.table.ranges("points")) == len(report.table.ranges("points")) - 1


def test_thresholds_of_other_graphs_go_and_those_of_the_same_stay(bundle: Bundle) -> None:
    first = calibrate_int8(bundle, frames(2), "frames", method="minmax").bundle
    limit = Threshold(1.0, 1.0, 9, 0.1, "2026-01-01")
    marked = first.with_thresholds({"cookie": limit}, "int8").with_thresholds({"cookie": limit}, "fp32")
    same = calibrate_int8(marked, frames(2), "frames", method="minmax").bundle
    assert same.threshold("cookie", "int8") == limit
    other = calibrate_int8(same, frames(4), "frames", method="percentile", percentile=90, every_layer=True).bundle
    assert other.threshold("cookie", "int8") is None and other.threshold("cookie", "fp32") == limit
    assert Bundle.open(bundle.path).threshold("cookie", "int8") is None


def test_a_packed_bundle_is_refused_before_the_work(bundle: Bundle, tmp_path: Path) -> None:
    packed = Bundle.open(pack(bundle, tmp_path / "b.tar"))
    with pytest.raises(EdgeAdError, match="packed bundle"):
        calibrate_int8(packed, frames(1), "frames")


def test_thresholds_of_fp16_are_those_of_the_twin(bundle: Bundle) -> None:
    done = CliRunner().invoke(main, ["calibrate", "fp16", str(bundle.path), "--jobs", "1"], standalone_mode=False)
    assert done.exit_code == 0, done.output
    written = Bundle.open(bundle.path)
    data = tiny_dataset({"hex_nut": (1, 9), "cookie": (1, 9)})
    with twin_bundle(written) as twin:
        calibrate(written, data, rate=0.2, precision="fp16", jobs=1, scored_with=(twin, "fp32"))
        assert twin.threshold("cookie", "fp16") is None
    again = Bundle.open(bundle.path)
    half = again.threshold("cookie", "fp16")
    calibrate(again, data, rate=0.2, jobs=1)
    full = Bundle.open(bundle.path).threshold("cookie", "fp32")
    assert half is not None and full is not None
    assert half.value == pytest.approx(full.value, rel=0.02) and half.value != full.value


def test_a_precision_that_is_missing_names_the_command(bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="edge-ad calibrate int8 .* --data DIR"):
        bundle.graph_file("rgb", "int8")
    with pytest.raises(EdgeAdError, match="edge-ad calibrate fp16"):
        bundle.graph_file("rgb", "fp16")


def test_a_variant_has_precisions_of_its_own(varied_export: Path, tmp_path: Path) -> None:
    shutil.copytree(varied_export, tmp_path / "v")
    light = Bundle.open(tmp_path / "v").as_variant("light")
    report = calibrate_int8(light, frames(2), "frames", method="minmax")
    assert report.bundle.variant == "light" and "int8" in report.bundle.precisions
    opened = Bundle.open(tmp_path / "v")
    assert opened.precisions == ("fp32",) and "int8" in opened.as_variant("light").precisions
    assert read_table(opened.path / "precision/light/int8.txt") == report.table
    detector = Detector(opened.as_variant("light"), precision="int8", threads=1, need_threshold=False)
    frame, name = frames(1)[0]
    assert np.isfinite(detector.score_sample(detector.preprocess(frame, name).samples[0], name).score)
