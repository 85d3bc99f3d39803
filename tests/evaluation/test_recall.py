"""Recall in groups at a stated threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.recall import RecallRow, area_share, recall_report, size_bin
from edge_ad.evaluation.report import Record

MAP = np.zeros((2, 2), dtype=np.float32)
VALID = np.ones((2, 2), dtype=bool)


def part(score, share=0.0, kind="good", modality="", class_name="bagel"):
    return Record(class_name, kind, kind != "good", score, MAP, None, VALID, share, modality)


PARTS = [
    *(part(s / 20) for s in range(20)),
    part(0.99, 0.005, "hole", "depth"),
    part(0.10, 0.005, "hole", "depth"),
    part(0.97, 0.020, "stain", "colour"),
    part(0.99, 0.050, "dent", "both"),
    part(0.20, 0.001, "hole", "depth"),
    part(0.96, 0.0, "odd"),
]


@pytest.mark.parametrize(
    ("share", "name"),
    [
        (0.0, "below 0.3 %"),
        (0.0029, "below 0.3 %"),
        (0.003, "0.3-1 %"),
        (0.0099, "0.3-1 %"),
        (0.01, "1-3 %"),
        (0.03, "3-10 %"),
        (0.10, "3-10 %"),
        (0.11, "above 10 %"),
        (1.0, "above 10 %"),
    ],
)
def test_bins(share, name):
    assert size_bin(share) == name


def test_groups_at_five_percent_false_rejects():
    report = recall_report(PARTS)
    # 20 good parts: one may be rejected, so the threshold is the second largest, 0.90.
    assert report.thresholds == {"bagel": 0.9}
    assert (report.false_rejects, report.good) == (1, 20)
    got = {(r.by, r.group): (r.found, r.total) for r in report.rows}
    assert got == {
        ("all", "all"): (4, 6),
        ("size", "below 0.3 %"): (0, 1),
        ("size", "0.3-1 %"): (1, 2),
        ("size", "1-3 %"): (1, 1),
        ("size", "3-10 %"): (1, 1),
        ("size", "unknown"): (1, 1),
        ("shows in", "both"): (1, 1),
        ("shows in", "colour"): (1, 1),
        ("shows in", "depth"): (1, 3),
        ("kind", "dent"): (1, 1),
        ("kind", "hole"): (1, 3),
        ("kind", "odd"): (1, 1),
        ("kind", "stain"): (1, 1),
        ("class", "bagel"): (4, 6),
    }
    text = report.table().to_text()
    assert "at most 5.0 % false rejects" in text and "1 of 20 good test parts (5.0 %)" in text
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["recall"] == pytest.approx(4 / 6)


def test_given_threshold_is_strict_and_may_differ_by_class():
    parts = [*PARTS, part(0.5, 0.02, "hole", class_name="peach")]
    report = recall_report(parts, {"bagel": 0.99, "peach": 0.4})
    assert {r.group: r.found for r in report.rows if r.by == "class"} == {"bagel": 0, "peach": 1}
    assert report.how == "given" and report.false_rejects == 0
    assert recall_report(parts, 0.0).rows[0].found == 7


def test_area_share_of_a_hole():
    part_pixels, gt = np.zeros((10, 10), dtype=bool), np.zeros((10, 10), dtype=bool)
    part_pixels[:, :5] = True
    gt[0, :2] = True
    assert area_share(gt, part_pixels) == 2 / 50
    assert area_share(gt, part_pixels & ~gt) == 2 / 50  # no depth in the hole: the same part
    assert area_share(gt & False, part_pixels) == 0.0
    with pytest.raises(EdgeAdError, match="one grid"):
        area_share(gt, part_pixels[:3])


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_interval_surrounds_the_share(total, share):
    row = RecallRow("all", "all", int(total * share), total)
    low, high = row.interval
    assert 0.0 <= low <= row.recall + 1e-12 and row.recall - 1e-12 <= high <= 1.0


def test_wilson_interval_known_value():
    # Newcombe (1998), table I: 81 of 263, score method.
    assert RecallRow("", "", 81, 263).interval == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("parts", "threshold", "words"),
    [
        ([part(0.1)], None, "no defective test part"),
        ([part(0.1, 0.1, "hole")], None, "no good test part"),
        ([part(0.1, 0.1, "hole")], {"peach": 1.0}, "class 'bagel' has no threshold"),
        ([part(0.1, 0.1, "hole")], float("nan"), "class 'bagel' has no threshold"),
    ],
)
def test_refusals(parts, threshold, words):
    with pytest.raises(EdgeAdError, match=words):
        recall_report(parts, threshold)


def test_without_good_parts_false_rejects_are_unknown():
    report = recall_report([part(0.1, 0.1, "hole")], 0.05)
    assert "false rejects: unknown" in report.table().to_text()
