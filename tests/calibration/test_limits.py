"""Limits of a bundle from held-out good parts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle import Bundle, pack
from edge_ad.calibration.limits import ANCHOR_MARGIN, LOST_MARGIN, calibrate
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.runner import score_items
from edge_ad.frame import Frame
from edge_ad.runtime import load_detector
from tests.training.tiny import make_frame, tiny_dataset


@pytest.fixture
def bundle(tiny_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")


def data(held_out: int = 9) -> Dataset:
    return tiny_dataset({"hex_nut": (1, held_out), "cookie": (1, held_out)})


def test_limits_are_those_of_the_good_parts_and_stand_in_the_bundle(bundle: Bundle) -> None:
    report = calibrate(bundle, data(), rate=0.2, jobs=1)
    assert [c.class_name for c in report.classes] == ["hex_nut", "cookie"]
    assert report.warnings == ()
    again = Bundle.open(bundle.path)
    for found in report.classes:
        items = data().select(found.class_name, "validation", "good")
        parts = list(score_items(bundle, items, class_name=found.class_name, jobs=1))
        scores = sorted((p.score for p in parts), reverse=True)
        limit = again.threshold(found.class_name, "fp32")
        assert limit == found.threshold and limit is not None
        assert limit.value == scores[1]  # floor(0.2 * 10) = 2: the second largest
        assert (limit.mask_value, limit.n_parts, limit.false_reject_rate) == (limit.value, 9, 0.2)
        floor = bundle.preset.limits.lost_share
        assert limit.lost_share == max(floor, LOST_MARGIN * max(p.lost_share for p in parts))
        assert limit.anchor_distance == pytest.approx(ANCHOR_MARGIN * max(p.anchor_distance for p in parts))
        assert not limit.augmented
        assert found.median_score == pytest.approx(float(np.median(scores)))
        assert 0.2 < found.rate_upper_95 < 1
        assert found.class_name in report.table() and report.to_json()[found.class_name]["n_parts"] == 9
    assert load_detector(bundle.path, threads=1)(make_frame("cookie", 1)).decision in ("normal", "anomalous")


def test_too_few_parts_for_the_rate_are_refused_before_any_work(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = "edge_ad.calibration.limits.score_items_at_strides"
    monkeypatch.setattr(scoring, lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(EdgeAdError, match=r"5 % from 9 held-out good parts; expected at least 1 / \(n \+ 1\) = 10 %"):
        calibrate(bundle, data(), rate=0.05, jobs=1)
    assert Bundle.open(bundle.path).manifest.thresholds == {}


def test_a_class_without_parts_keeps_its_limits_and_is_named(bundle: Bundle) -> None:
    only = tiny_dataset({"cookie": (1, 4)})
    report = calibrate(bundle, only, rate=0.2, jobs=1)
    assert any("no good parts of hex_nut" in w for w in report.warnings)
    again = Bundle.open(bundle.path)
    assert again.threshold("hex_nut", "fp32") is None and again.threshold("cookie", "fp32") is not None
    with pytest.raises(EdgeAdError, match="no good parts in the split 'test' of hex_nut, cookie"):
        calibrate(bundle, only, split="test", rate=0.2, jobs=1)


def broken() -> Frame:
    raise InvalidFrame("x.png is cut short")


def test_a_part_that_cannot_be_read_is_named_and_does_not_count(bundle: Bundle) -> None:
    whole = tiny_dataset({"cookie": (0, 5)})
    items = (replace(whole.items[0], read_frame=broken), *whole.items[1:])
    report = calibrate(bundle, replace(whole, items=items), rate=0.2, jobs=1)
    assert "cookie/validation/0 was left out: x.png is cut short" in report.warnings
    assert report.classes[0].threshold.n_parts == 4
    with pytest.raises(EdgeAdError, match="from 3 held-out good parts"):
        calibrate(bundle, replace(whole, items=items[:4]), rate=0.2, jobs=1)


def test_variations_are_noted(bundle: Bundle) -> None:
    report = calibrate(bundle, tiny_dataset({"cookie": (0, 2)}), rate=0.2, augment=2, jobs=1)
    limit = report.classes[0].threshold
    assert limit.augmented and limit.n_parts == 6


def test_a_packed_bundle_is_refused_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    packed = Bundle.open(pack(bundle, tmp_path / "b.tar"))
    with pytest.raises(EdgeAdError, match="thresholds cannot be set in a packed bundle"):
        calibrate(packed, data(), rate=0.2, jobs=1)
