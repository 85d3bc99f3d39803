"""Variants and the tuned point in a bundle: fitted, exported, opened, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle import Bundle, OperatingPoint, Threshold
from edge_ad.bundle.manifest import MANIFEST, seal
from edge_ad.bundle.variants import threshold_slot
from edge_ad.errors import EdgeAdError
from edge_ad.runtime import load_detector
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.point import choose_point, point_lines
from tests.training.tiny import make_frame

LIMIT = Threshold(0.5, 0.5, 20, 0.05, "2026-01-01T00:00:00+00:00")


@pytest.fixture
def bundle(varied_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(varied_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")


def test_a_bundle_carries_its_variants_with_graphs_and_answers_of_their_own(bundle: Bundle) -> None:
    assert bundle.variants == ("base", "light")
    light = bundle.as_variant("light")
    assert light.preset.points.groups == 12 and bundle.preset.points.groups == 24
    assert light.graph_path("points").is_file() and light.graph_path("points") != bundle.graph_path("points")
    assert light.graph("points").inputs[0].shape[1] == 12
    assert light.graph("rgb").meta["counts"]["gflop"] > 0
    assert light.as_variant("base").preset == bundle.preset and bundle.as_variant("base") == bundle
    ours, theirs = bundle.golden(), light.golden()
    assert [g.name for g in ours] == [g.name for g in theirs]
    assert any(not np.array_equal(a.map, b.map) for a, b in zip(ours, theirs))
    # The answers are those that the runtime gives with the variant.
    detector = Detector(light, threads=1, need_threshold=False)
    for g in theirs:
        scored = detector.score_sample(detector.preprocess(g.frame, g.class_name).samples[0], g.class_name)
        np.testing.assert_allclose(scored.map, g.map, atol=1e-4 * g.map.max())
    with pytest.raises(EdgeAdError, match="no variant 'heavy'.*base, light"):
        bundle.as_variant("heavy")


def test_thresholds_are_kept_apart_by_variant_and_stride(bundle: Bundle) -> None:
    both = dict.fromkeys(bundle.class_names, LIMIT)
    bundle.as_variant("light", 2).with_thresholds(both, "fp32")
    opened = Bundle.open(bundle.path)
    assert opened.as_variant("light", 2).threshold("cookie", "fp32") == LIMIT
    for view in (opened, opened.as_variant("light"), opened.as_variant("base", 2)):
        assert view.threshold("cookie", "fp32") is None
    assert threshold_slot("light", 2) == "light+stride2" and threshold_slot("light") == "light"
    with pytest.raises(EdgeAdError, match=r"variant light, score stride 3.*--variant 'light' --score-stride 3"):
        load_detector(opened, variant="light", stride=3)
    detector = load_detector(opened, variant="light", stride=2, threads=1)
    assert detector(make_frame("cookie", 1)).threshold == LIMIT.value


def test_the_tuned_point_is_what_a_run_uses_unless_told_otherwise(bundle: Bundle) -> None:
    assert choose_point(bundle) == OperatingPoint() and point_lines(bundle, choose_point(bundle)) == []
    row = {"variant": "light", "stride": 2, "precision": "fp32", "backend": "onnxruntime", "i_auroc": 0.9}
    row |= {"exact": {"i_auroc": 0.95}}
    bundle.with_point(OperatingPoint("light", 2, measured={"rows": [row]}))
    opened = Bundle.open(bundle.path)
    chosen = choose_point(opened)
    assert (chosen.variant, chosen.stride) == ("light", 2)
    told = " ".join(point_lines(opened, chosen))
    assert "chosen by edge-ad tune" in told and "I-AUROC 0.900 (exact 0.950)" in told
    other = choose_point(opened, stride=3)
    assert (other.variant, other.stride) == ("light", 3)
    assert "not measured on this bundle" in " ".join(point_lines(opened, other))
    assert opened.with_point(None).point is None
    with pytest.raises(EdgeAdError, match="unknown variant 'heavy'"):
        bundle.with_point(OperatingPoint("heavy"))
    with pytest.raises(EdgeAdError, match="score stride 99"):
        choose_point(opened, stride=99)
    assert Bundle.open(bundle.path).point is None


def test_a_bundle_without_the_new_fields_still_opens(bundle: Bundle) -> None:
    path = bundle.path / MANIFEST
    values = json.loads(path.read_text())
    del values["variants"], values["point"]
    path.write_text(json.dumps(seal(values)))
    opened = Bundle.open(bundle.path, verify=False)
    assert opened.variants == ("base",) and opened.point is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"variants": []}, "JSON object"),
        ({"variants": {"fp16": {}}}, "a variant named 'fp16'"),
        ({"variants": {"x": {"graphs": {}}}}, "the field 'geometry' is missing"),
        ({"point": {"variant": "base", "stride": 0, "precision": "fp32", "backend": "x", "measured": {}}}, "stride 0"),
        ({"point": {"variant": "base", "stride": 1, "precision": "fp8", "backend": "x", "measured": {}}}, "fp8"),
    ],
)
def test_damaged_fields_are_one_line(bundle: Bundle, change: dict[str, object], says: str) -> None:
    path = bundle.path / MANIFEST
    values = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(seal(values)))
    if change.get("variants") == []:
        values["variants"] = [1]
        path.write_text(json.dumps(seal(values)))
    with pytest.raises(EdgeAdError, match=says):
        Bundle.open(bundle.path, verify=False)


def test_a_stride_changes_only_what_lies_between_scored_pixels(bundle: Bundle) -> None:
    exact = Detector(bundle, threads=1, need_threshold=False)
    strided = Detector(replace(bundle, stride=2), threads=1, need_threshold=False)
    frame = make_frame("cookie", 1)
    sample = exact.preprocess(frame, "cookie").samples[0]
    a, b = exact.score_sample(sample, "cookie"), strided.score_sample(sample, "cookie")
    assert a.distances["rgb"].shape == b.distances["rgb"].shape
    same = np.isclose(a.distances["rgb"], b.distances["rgb"], rtol=1e-5)
    assert 0.2 < same.mean() < 0.9
    assert np.corrcoef(a.map[sample.valid], b.map[sample.valid])[0, 1] > 0.8
