"""INT8 and FP16 of a whole bundle: calibrate, measure, write, run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edge_ad.bundle import Bundle, Threshold, pack
from edge_ad.calibration.int8.calibrate import (
    apply_table,
    calibrate_int8,
    items_of_frames,
    parts_to_measure,
)
from edge_ad.calibration.int8.frames import frames_of_bundle, frames_of_camera, frames_of_data, refuse_constant, spread
from edge_ad.calibration.int8.outcome import Outcome
from edge_ad.calibration.int8.picture import draw
from edge_ad.calibration.int8.sensitivity import BlockCost, Sensitivity
from edge_ad.calibration.int8.table import parse_table, read_table
from edge_ad.calibration.limits import calibrate
from edge_ad.cli.main import main
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import twin_bundle
from edge_ad.export.precision.replay import Replay
from edge_ad.frame import Bool, Frame
from edge_ad.runtime.detector import Detector
from tests.training.tiny import HEIGHT, WIDTH, make_frame, tiny_dataset


@pytest.fixture
def bundle(tiny_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")


def frames(count: int = 4) -> list[tuple[Frame, str]]:
    return [(make_frame(name, i), name) for i in range(count) for name in ("hex_nut", "cookie")]


def spoilt(number: int) -> Frame:
    """A part with a patch of another colour, a bump with it."""
    frame = make_frame("cookie", number)
    colour, depth = frame.colour.copy(), frame.depth
    assert depth is not None
    depth = depth.copy()
    colour[26:36, 30:40] = (250, 20, 220)
    depth[26:36, 30:40] -= 60
    return replace(frame, colour=colour, depth=depth)


def patch() -> Bool:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[26:36, 30:40] = True
    return mask


def labelled() -> Dataset:
    """The tiny data with a test split of good and spoilt cookies."""
    good = [
        Item(
            f"cookie/good/{i}",
            "cookie",
            "test",
            "good",
            Path("g.png"),
            partial(make_frame, "cookie", 20 + i),
            _none,
        )
        for i in range(3)
    ]
    bad = [
        Item(f"cookie/test/patch/{i}", "cookie", "test", "patch", Path("p.png"), partial(spoilt, 30 + i), patch)
        for i in range(3)
    ]
    base = tiny_dataset()
    return Dataset(base.root, base.layout, (*base.items, *good, *bad))


def _none() -> Bool | None:
    return None


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
    assert 0 < np.abs(found.map - want.map).max() < 0.02 * want.map.max()


def test_a_line_changed_by_hand_is_obeyed(bundle: Bundle) -> None:
    report = calibrate_int8(bundle, frames(2), "frames", method="minmax")
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
    other = calibrate_int8(same, frames(4), "frames", method="percentile", percentile=90).bundle
    assert other.threshold("cookie", "int8") is None and other.threshold("cookie", "fp32") == limit
    assert Bundle.open(bundle.path).threshold("cookie", "int8") is None


def test_max_drop_measures_blocks_in_the_tasks_metric_and_leaves_the_worst(bundle: Bundle) -> None:
    items = parts_to_measure(bundle, labelled(), 6)
    assert {i.defect for i in items} == {"good", "patch"}
    seen: list[str] = []

    def track(values, total, label):  # type: ignore[no-untyped-def]
        seen.append(label)
        return values

    report = calibrate_int8(
        bundle,
        frames(2),
        "frames",
        method="percentile",
        percentile=60,
        max_drop=0.001,
        measure_on=items,
        jobs=1,
        track=track,
    )
    found = report.sensitivity
    assert found is not None and found.base.labelled and found.base.i_auroc is not None
    assert {"calibrate", "fp16 twin", "sensitivity"} <= set(seen), "long work shows progress"
    graphs = {b.graph for b in found.blocks}
    assert {"rgb", "points"} <= graphs and all(b.layers > 0 for b in found.blocks)
    assert found.final.drop(found.base) <= 0.001
    left = {r.layer for r in report.table.rows if r.mode == "fp16"}
    assert bool(left) == bool(found.left_out)
    assert [b.kept for b in found.blocks] == sorted((b.kept for b in found.blocks), reverse=True), "the worst first"
    text = found.table()
    assert "I-AUROC" in text and "all in INT8" in text and f"over {found.base.parts} parts" in text
    assert json.loads(json.dumps(found.to_json()))["metric"] == "i_auroc, aupro_30"
    assert draw(found).shape[2] == 3


def test_with_good_parts_only_the_map_and_the_false_rejects_count(bundle: Bundle) -> None:
    shown = frames(2)
    report = calibrate_int8(
        bundle, shown, "camera", max_drop=50.0, measure_on=items_of_frames(shown, bundle), jobs=1
    ).sensitivity
    assert report is not None and not report.base.labelled
    assert report.base.correlation == pytest.approx(1) and report.base.false_rejects == 0
    assert "rejects" in report.table() and report.to_json()["metric"] == "map correlation, false rejects"


def test_a_drop_that_nothing_meets_is_refused_and_the_bundle_stays(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(EdgeAdError, match="no block can run in INT8 within a drop of 0 points"):
        calibrate_int8(bundle, frames(2), "camera", max_drop=0.0, measure_on=items_of_frames(frames(2), bundle), jobs=1)
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert not (bundle.path / "onnx/int8").exists()


def outcome(i_auroc: float | None, aupro: float | None, corr: float = 1.0, rejects: float = 0.0) -> Outcome:
    return Outcome(i_auroc, aupro, corr, 0.0, rejects)


@pytest.mark.parametrize(
    ("base", "found", "drop"),
    [
        (outcome(0.95, 0.9), outcome(0.94, 0.9), 1.0),
        (outcome(0.95, 0.9), outcome(0.96, 0.88), 2.0),
        (outcome(0.95, None), outcome(0.94, None), 1.0),
        (outcome(None, None), outcome(None, None, 0.999), 0.1),
        (outcome(None, None, 1.0, 0.05), outcome(None, None, 0.999, 0.10), 5.0),
    ],
)
def test_the_drop_is_the_worse_of_what_can_be_measured(base: Outcome, found: Outcome, drop: float) -> None:
    assert found.drop(base) == pytest.approx(drop)


def test_the_picture_marks_what_was_left_in_fp16() -> None:
    base = outcome(0.9, 0.9)
    costs = tuple(
        BlockCost("rgb", f"blocks.{i}", 4, 1.0, replace(base, map_error=0.1 * (3 - i)), kept=i == 0) for i in range(3)
    )
    report = Sensitivity(base, base, costs, base, 0.2, 6)
    orange, blue = (214, 110, 60), (66, 120, 190)
    picture = draw(report)
    count = [int((picture == np.array(c, np.uint8)).all(axis=2).sum()) for c in (orange, blue)]
    assert min(count) > 100


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: replace(f, colour=np.full_like(f.colour, 7)), "the colour of .* is 7 everywhere"),
        (lambda f: replace(f, depth=np.full_like(f.depth, 900)), "the depth of .* is 900 everywhere"),
    ],
)
def test_constant_frames_are_refused(change, text: str, bundle: Bundle) -> None:  # type: ignore[no-untyped-def]
    shown = [(change(f), c) for f, c in frames(2)]
    with pytest.raises(EdgeAdError, match=text):
        calibrate_int8(bundle, shown, "somewhere")
    assert Bundle.open(bundle.path).precisions == ("fp32",)


def test_no_frames_the_same_frame_and_frames_without_a_part_are_refused(bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="gave no readable frame"):
        refuse_constant([], "camera")
    with pytest.raises(EdgeAdError, match="all 3 frames are the same"):
        refuse_constant([frames(1)[0]] * 3, "camera")
    empty = [(make_frame("cookie", -1 - i), "cookie") for i in range(2)]
    with pytest.raises(EdgeAdError, match="none of the calibration frames could be scored"):
        calibrate_int8(bundle, empty, "somewhere")


def test_a_packed_bundle_is_refused_before_the_work(bundle: Bundle, tmp_path: Path) -> None:
    packed = Bundle.open(pack(bundle, tmp_path / "b.tar"))
    with pytest.raises(EdgeAdError, match="packed bundle"):
        calibrate_int8(packed, frames(1), "frames")


def test_frames_are_spread_over_the_classes(bundle: Bundle) -> None:
    data = tiny_dataset({"hex_nut": (2, 9), "cookie": (2, 9)})
    chosen = spread(data.select(split="validation"), 6)
    assert [i.class_name for i in chosen] == ["hex_nut"] * 3 + ["cookie"] * 3
    assert [i.name.rpartition("/")[2] for i in chosen[:3]] == ["2", "6", "10"]
    assert len(frames_of_data(bundle, data, 6)) == 6
    taken = frames_of_camera("synthetic:gear?frames=3", 2, "cookie")
    assert [c for _, c in taken] == ["cookie", "cookie"]


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


def run(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(a) for a in args], standalone_mode=False)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_the_command_says_what_is_wrong_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    for args, text in (
        ((), "no frames to calibrate on; expected one of --data DIR, --camera URI, --table FILE"),
        (("--data", "d", "--camera", "c"), "--data and --camera; expected one of"),
        (("--table", tmp_path / "none.txt"), "none.txt does not exist"),
        (("--data", tmp_path / "nowhere"), "nowhere does not exist"),
    ):
        code, told = run("calibrate", "int8", bundle.path, *args)
        lines = [line for line in told.splitlines() if line.startswith("error:")]
        assert code == 1 and len(lines) == 1 and text in lines[0], told
        assert "Traceback" not in told


def test_the_command_writes_picture_table_and_json(bundle: Bundle) -> None:
    uri = "synthetic:hex_nut?frames=3"
    code, told = run(
        "calibrate",
        "int8",
        bundle.path,
        "--camera",
        uri,
        "--class-name",
        "hex_nut",
        "--max-drop",
        90,
        "--jobs",
        1,
        "--json",
    )
    assert code == 0, told
    document = json.loads(told[told.index("{\n") :])
    assert document["frames"] == 3 and document["sensitivity"]["blocks"] and document["bytes"]["rgb"]["int8"] > 0
    assert cv2.imread(document["picture"]) is not None
    code, told = run("calibrate", "int8", bundle.path, "--table", bundle.path / "precision/int8.txt", "--jobs", 1)
    assert code == 0 and "written into" in told, told
    code, told = run("run", bundle.path, "--camera", uri, "--precision", "int8")
    assert code == 1 and "no threshold" in told and "--precision int8" in told


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
    code, told = run("calibrate", "fp16", tmp_path / "v", "--variant", "light", "--jobs", 1)
    assert code == 0 and "--precision fp16 --variant light" in told, told
    with twin_bundle(Bundle.open(tmp_path / "v").as_variant("light")) as twin:
        assert twin.variant == "light"
        assert type(Detector(twin, threads=1, need_threshold=False).sessions["score"]).__name__ == "OnnxSession"
