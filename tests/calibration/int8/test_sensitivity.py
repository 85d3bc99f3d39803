"""What each block costs in the metric of the task, and which blocks are left in FP16."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import (
    calibrate_int8,
    items_of_frames,
    parts_to_measure,
)
from edge_ad.calibration.int8.outcome import Outcome
from edge_ad.calibration.int8.picture import draw
from edge_ad.calibration.int8.sensitivity import BlockCost, Sensitivity
from edge_ad.errors import EdgeAdError
from tests.calibration.int8.parts import frames, labelled


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
        every_layer=True,
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
        bundle, shown, "camera", max_drop=100.0, measure_on=items_of_frames(shown, bundle), jobs=1
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
