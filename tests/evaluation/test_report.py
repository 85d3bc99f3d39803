"""The report against the metrics themselves, and what it says where a metric cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.metrics import aupro, auroc, pixel_auroc
from edge_ad.evaluation.recall import area_share
from edge_ad.evaluation.report import Record, evaluate_scores

S = 24


def records(class_name="bagel", good=6, bad=8, seed=0, **other):
    rng = np.random.default_rng(seed)
    valid = np.zeros((S, S), dtype=bool)
    valid[3:21, 4:20] = True
    made = []
    for i in range(good + bad):
        gt = np.zeros((S, S), dtype=bool)
        if i >= good:
            gt[8 : 10 + i % 4, 6:9] = True
        anomaly = ((rng.random((S, S)) + 0.7 * gt) * valid).astype(np.float32)
        made.append(
            Record(
                class_name=class_name,
                defect="hole" if i >= good else "good",
                is_defective=i >= good,
                score=float(anomaly.max()),
                map=anomaly,
                gt=gt,
                valid=valid,
                area_share=area_share(gt, valid),
                modality="depth" if i % 2 else "colour",
                name=f"{class_name}-{i}",
                **other,
            )
        )
    return made


@pytest.mark.parametrize("thresholds", [None, 99])
def test_report_holds_the_metrics_and_their_mean(thresholds):
    a, b = records("bagel", seed=1), records("peach", seed=2, good=3)
    report = evaluate_scores([*b, *a], thresholds)
    assert [c.class_name for c in report.classes] == ["bagel", "peach"]
    for got, parts in zip(report.classes, (a, b), strict=True):
        masks, maps = [r.gt for r in parts], [r.map for r in parts]
        assert got.i_auroc == auroc([r.is_defective for r in parts], [r.score for r in parts])
        assert got.p_auroc == pixel_auroc(masks, maps)
        assert got.aupro_30 == aupro(masks, maps, 0.3, thresholds)
        assert got.aupro_1 == aupro(masks, maps, 0.01, thresholds)
        assert (got.good, got.defective, got.components) == (len(parts) - 8, 8, 8)
    assert report.mean["aupro_1"] == pytest.approx(np.mean([c.aupro_1 for c in report.classes]))


@pytest.mark.parametrize(("thresholds", "said"), [(None, "exact integration"), (99, "99 thresholds")])
def test_every_form_says_the_number_of_thresholds(thresholds, said):
    report = evaluate_scores(records(), thresholds, notes=["2 parts could not be scored"])
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["aupro_thresholds"] == ("exact" if thresholds is None else 99)
    for text in (report.to_text(), report.to_markdown()):
        assert said in text and "2 parts could not be scored" in text
    row = next(line for line in report.to_text().splitlines() if line.startswith("bagel"))
    assert row.split() == ["bagel", "6", "8", *(f"{100 * v:.1f}" for v in report.classes[0].metrics().values())]


def test_further_maps_are_scored_by_their_maximum():
    parts = [replace(r, other_maps={"colour": (1.0 - r.map).astype(np.float32)}) for r in records()]
    report = evaluate_scores(parts)
    (other,) = report.others["colour"]
    maps = [r.other_maps["colour"] for r in parts]
    assert other.i_auroc == auroc([r.is_defective for r in parts], [m.max() for m in maps])
    assert other.p_auroc == pixel_auroc([r.gt for r in parts], maps)
    assert report.to_json()["other_maps"]["colour"]["mean"]["p_auroc"] == other.p_auroc
    assert "Map 'colour'" in report.to_text()


def test_missing_metrics_are_said_not_invented():
    only_good = [r for r in records("bagel") if not r.is_defective]
    undrawn = [replace(r, gt=None) if r.is_defective else r for r in records("peach")]
    report = evaluate_scores([*only_good, *undrawn, *records("foam")])
    bagel, foam, peach = report.classes
    assert set(bagel.metrics().values()) == {None}
    assert peach.i_auroc is not None and peach.p_auroc is None and peach.aupro_1 is None
    assert report.mean["p_auroc"] == foam.p_auroc
    text = report.to_text()
    assert "8 defective parts have no ground truth" in text
    assert "mean of P-AUROC without bagel, peach" in text and "mean of I-AUROC without bagel" in text


def test_good_part_without_ground_truth_counts_as_clean():
    parts = records()
    bare = [r if r.is_defective else replace(r, gt=None) for r in parts]
    assert evaluate_scores(bare).classes == evaluate_scores(parts).classes


def test_refusals():
    one = records()[0]
    with pytest.raises(EdgeAdError, match="no scored part"):
        evaluate_scores([])
    with pytest.raises(EdgeAdError, match=r"bagel-0.*NaN"):
        evaluate_scores([replace(one, score=float("nan"))])
    with pytest.raises(EdgeAdError, match=r"bagel-0.*NaN"):
        evaluate_scores([replace(one, map=one.map * np.float32("nan"))])
    with pytest.raises(EdgeAdError, match="one sample grid"):
        replace(one, valid=one.valid[:4])
    with pytest.raises(EdgeAdError, match="labelled good"):
        replace(one, gt=~one.gt)
    with pytest.raises(EdgeAdError, match="different further maps"):
        evaluate_scores([one, replace(one, other_maps={"text": one.map})])
