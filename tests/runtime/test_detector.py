"""Decisions of the runtime detector on a real small bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle import Bundle, Threshold
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame, Result
from edge_ad.runtime import Detector, load_detector
from edge_ad.runtime.detector import AUTO
from edge_ad.runtime.parts import CUT_OFF
from tests.frames import boxes
from tests.training.tiny import make_frame

HIGH, LOW = 1e6, 0.0


def threshold(value: float, **changes: float) -> Threshold:
    fields = {"mask_value": value, "n_parts": 20, "false_reject_rate": 0.05, "set_at": "2025-01-01T00:00:00+00:00"}
    return Threshold(value=value, **{**fields, **changes})  # type: ignore[arg-type]


Make = Callable[..., Detector]


@pytest.fixture
def make(tiny_export: Path, tmp_path: Path) -> Make:
    """``make(limit, class_name=None, **threshold fields)`` -> a detector whose classes all have that threshold."""

    def build(limit: float, class_name: str | None = None, **changes: float) -> Detector:
        path = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_export, path)
        bundle = Bundle.open(path)
        bundle.with_thresholds({c: threshold(limit, **changes) for c in bundle.class_names}, "fp32")
        return load_detector(path, threads=1, class_name=class_name)

    return build


def lose(frame: Frame, y0: int, y1: int, x0: int, x1: int) -> Frame:
    assert frame.depth is not None
    depth = frame.depth.copy()
    depth[y0:y1, x0:x1] = 0
    return replace(frame, depth=depth)


def test_a_score_below_the_threshold_is_normal(make: Make) -> None:
    frame = make_frame("cookie", 3)
    result = make(HIGH)(frame)
    assert (result.decision, result.health, result.reasons) == ("normal", "ok", ())
    assert result.class_name == "cookie" and result.threshold == HIGH
    assert result.map is not None and result.map.shape == frame.shape and result.map.dtype == np.float32
    assert result.mask is not None and result.mask.dtype == np.bool_ and not result.mask.any()
    assert result.sample_map is not None and result.valid is not None
    assert result.score == pytest.approx(float(result.sample_map.max()))
    assert np.isfinite(result.map).all() and result.map.max() > 0
    assert {"geometry", "points", "rgb encoder", "point encoder", "tokens", "score", "map", "total"} <= set(
        result.times_ms
    )
    assert result.times_ms["total"] >= sum(v for k, v in result.times_ms.items() if k != "total") * 0.99


def test_a_score_above_the_threshold_is_anomalous_and_shows_where(make: Make) -> None:
    result = make(LOW)(make_frame("cookie", 3))
    assert result.decision == "anomalous"
    assert result.mask is not None and result.mask.any()
    assert result.regions and result.regions[0].area_mm2 > 0 and result.regions[0].position_mm is not None
    x0, y0, x1, y1 = result.regions[0].box
    assert result.mask[y0:y1, x0:x1].any()
    assert result.regions[0].position_mm[2] == pytest.approx(380, abs=30)


def test_a_tiny_excess_still_shows_where_though_small_regions_are_dropped(make: Make) -> None:
    score = make(HIGH)(make_frame("cookie", 3)).score
    detector = make(score * (1 - 1e-6))
    # A map that runs over the border may hold its maximum on more than one pixel there.
    detector.preset = replace(detector.preset, fusion=replace(detector.preset.fusion, spread=0))
    result = detector(make_frame("cookie", 3))
    assert result.decision == "anomalous"
    assert result.sample_mask is not None and 0 < result.sample_mask.sum() < 4
    assert result.mask is not None and result.mask.any() and result.regions


def test_the_decision_is_strictly_above(make: Make) -> None:
    score = make(HIGH)(make_frame("hex_nut", 1)).score
    assert make(score)(make_frame("hex_nut", 1)).decision == "normal"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (replace(make_frame("cookie", 3), depth=np.zeros((60, 72), np.uint16)), "no pixel has depth"),
        (replace(make_frame("cookie", 3), depth=np.full((60, 72), np.nan, np.float32)), "no pixel has depth"),
        (make_frame("cookie", -1), "no part stands above"),
        (replace(make_frame("cookie", 3), colour=np.zeros((50, 72, 3), np.uint8)), "both on one grid"),
        (replace(make_frame("cookie", 3), intrinsics=None), "without intrinsics"),
        (boxes(60, 72, (20, 22, 20, 22), name="speck"), "no part stands above"),
    ],
)
def test_what_cannot_be_inspected_is_invalid_with_its_reason(make: Make, frame: Frame, reason: str) -> None:
    for limit in (HIGH, LOW):
        result = make(limit, "cookie")(frame)
        assert result.decision == "invalid"
        assert len(result.reasons) == 1
        assert reason in result.reasons[0]
        assert result.map is None and np.isnan(result.score) and result.name == frame.name
        assert result.to_json()["score"] is None


def test_too_few_valid_pixels_are_invalid(make: Make) -> None:
    detector = make(LOW, "hex_nut")
    detector.preprocess.geometry = replace(detector.preset.geometry, crop="image")
    result = detector(boxes(60, 72, (20, 23, 20, 23)))
    assert result.decision == "invalid"
    assert "valid pixels; expected at least 20" in result.reasons[0]


def test_lost_depth_is_never_normal(make: Make) -> None:
    frame = lose(make_frame("hex_nut", 1), 22, 36, 28, 42)
    result = make(HIGH)(frame)
    assert result.decision == "invalid"
    assert "lost depth on" in result.reasons[0]
    assert result.lost_share > 0.1
    assert [r.kind for r in result.regions] == ["lost-depth"]
    assert result.regions[0].area_px == pytest.approx(14 * 14, rel=0.1)
    # What good parts were seen to lose may pass, and a defect beside it is still one.
    assert make(HIGH, lost_share=0.9)(frame).decision == "normal"
    assert make(LOW)(frame).decision == "anomalous"


def test_a_part_cut_off_by_the_frame_is_never_normal(make: Make) -> None:
    frame = boxes(60, 72, (0, 30, 20, 50))
    result = make(HIGH, "hex_nut")(frame)
    assert result.decision == "invalid" and CUT_OFF in result.reasons
    assert make(LOW, "hex_nut")(frame).decision == "anomalous"


def test_a_part_unlike_its_class_is_never_normal(make: Make) -> None:
    result = make(HIGH, anchor_distance=1e-6)(make_frame("cookie", 3))
    assert result.decision == "invalid"
    assert "unlike" in result.reasons[0]
    assert make(HIGH, anchor_distance=2.1)(make_frame("cookie", 3)).decision == "normal"


def test_a_part_that_cannot_be_scored_does_not_hide_the_one_beside_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make(LOW, "hex_nut")
    detector.preprocess.geometry = replace(detector.preset.geometry, crop="part", cluster_min_area=0.005)
    both = boxes(60, 72, (10, 40, 8, 38), (20, 26, 52, 58))
    assert len(detector.preprocess(both, "hex_nut").samples) == 2
    whole = detector.prepare_part

    def prepare(sample: object, *args: object) -> object:
        side = sample.transform.side  # type: ignore[attr-defined]
        if side < 20:
            from edge_ad.errors import InvalidFrame

            raise InvalidFrame("only 3 valid pixels", "at least 20")
        return whole(sample, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(detector, "prepare_part", prepare)
    result = detector(both)
    assert result.decision == "anomalous"
    assert "only 3 valid pixels" in result.reasons[0]
    high = {c: replace(limits, score=HIGH, mask=HIGH) for c, limits in detector.limits.items()}
    monkeypatch.setattr(detector, "limits", high)
    assert detector(both).decision == "invalid"


def test_two_parts_come_back_on_one_camera_map(make: Make) -> None:
    detector = make(LOW, "hex_nut")
    detector.preprocess.geometry = replace(detector.preset.geometry, crop="part")
    result = detector(boxes(60, 72, (10, 34, 6, 30), (20, 46, 42, 66)))
    assert result.map is not None and result.mask is not None
    assert result.map[20, 18] > 0 and result.map[33, 54] > 0
    assert result.map[:, 36].max() == 0
    assert len(result.regions) >= 2


@pytest.mark.parametrize("class_name", ["cookie", "hex_nut"])
def test_auto_takes_the_class_whose_anchor_is_nearest(make: Make, class_name: str) -> None:
    detector = make(HIGH, AUTO)
    results = [detector(replace(make_frame(class_name, n), class_name=None)) for n in range(3)]
    prepared = detector.preprocess(make_frame(class_name, 0)).samples[0]
    near = {c: detector.score_sample(prepared, c).anchor_distance for c in detector.classes}
    assert results[0].class_name == min(near, key=lambda c: near[c])
    named = make(HIGH, results[0].class_name)(make_frame(class_name, 0))
    assert results[0].score == pytest.approx(named.score, rel=1e-6)


def test_the_class_is_the_callers_then_the_sources_then_auto(make: Make) -> None:
    frame = make_frame("cookie", 0)
    assert make(HIGH)(frame).class_name == "cookie"
    assert make(HIGH, "hex_nut")(frame).class_name == "hex_nut"
    detector = make(HIGH)
    assert detector.choose_class(replace(frame, class_name=None)) == AUTO
    assert detector.choose_class(replace(frame, class_name="gear")) == AUTO
    detector.classes = ("cookie",)
    assert detector.choose_class(replace(frame, class_name=None)) == "cookie"


def test_an_unknown_class_is_refused(make: Make) -> None:
    with pytest.raises(EdgeAdError, match=r"unknown class 'gear'; expected one of hex_nut, cookie, or auto"):
        make(HIGH, "gear")


def test_auto_without_text_is_refused_where_there_are_several_classes(make: Make) -> None:
    detector = make(HIGH, AUTO)
    detector.has_text = False
    with pytest.raises(EdgeAdError, match=r"'auto' needs text anchors.*--class"):
        detector(make_frame("cookie", 0))
    detector.classes = ("hex_nut",)
    assert detector(make_frame("cookie", 0)).class_name == "hex_nut"


def test_without_a_threshold_it_is_refused(tiny_export: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match=r"no threshold for class hex_nut, cookie at fp32.*calibrate thresholds"):
        load_detector(tiny_export)
    shutil.copytree(tiny_export, tmp_path / "b")
    Bundle.open(tmp_path / "b").with_thresholds({"cookie": threshold(1.0)}, "fp32")
    with pytest.raises(EdgeAdError, match="no threshold for class hex_nut at"):
        load_detector(tmp_path / "b")
    assert load_detector(tmp_path / "b", class_name="cookie", threads=1).limits["cookie"].score == 1.0


def test_without_a_threshold_nothing_is_normal(tiny_export: Path) -> None:
    detector = Detector(Bundle.open(tiny_export), threads=1, need_threshold=False)
    result: Result = detector(make_frame("cookie", 3))
    assert result.decision == "invalid"
    assert "no threshold" in result.reasons[0]


def test_two_runs_give_the_same_bits(make: Make) -> None:
    first, second = (make(HIGH)(make_frame("cookie", 2)) for _ in range(2))
    assert first.score == second.score
    np.testing.assert_array_equal(first.map, second.map)
