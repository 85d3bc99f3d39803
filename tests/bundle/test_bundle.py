"""What is in a bundle comes back; thresholds, anchors and names that do not fit are refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_ad.bundle import Bundle, Threshold
from edge_ad.errors import EdgeAdError
from tests.bundles import CLASSES, THRESHOLD, golden_frame, tiny_bundle


def test_what_is_written_comes_back(master: Bundle) -> None:
    opened = Bundle.open(master.path)
    assert opened.manifest == master.manifest
    assert opened.classes == CLASSES and opened.class_names == ("bracket", "cap")
    assert opened.preset.name == "compact"
    assert opened.points_scale_m == 0.05 and opened.balance == (0.1, 0.2, 0.3)
    assert opened.graph("score").inputs[0].shape == ("rows", 8)
    assert opened.graph_path("rgb").read_bytes()
    assert opened.anchors is not None and opened.anchors.shape == (2, 384)
    assert opened.scene("bracket") is None
    scene = opened.scene("cap")
    assert scene is not None and scene["roi"].dtype == bool and scene["roi"].all()
    assert opened.precisions == ("fp32",)


def test_golden_frames_come_back_bit_for_bit(master: Bundle) -> None:
    frames = Bundle.open(master.path).golden()
    assert [g.name for g in frames] == ["part-000", "part-001"] and [g.defect for g in frames] == [False, True]
    for seed, got in enumerate(frames):
        want = golden_frame(f"part-{seed:03d}", defect=bool(seed), seed=seed)
        np.testing.assert_array_equal(got.map, want.map)
        np.testing.assert_array_equal(got.frame.colour, want.frame.colour)
        assert got.frame.depth is not None and got.frame.depth.dtype == np.uint16
        np.testing.assert_array_equal(got.frame.depth, want.frame.depth)
        assert got.frame.intrinsics == want.frame.intrinsics and got.frame.flags == ("repeated",)
        assert got.score == want.score


@pytest.mark.parametrize("changes", [{"geometry": {}}, {"geometry": {"points_scale_m": 0}}])
def test_a_scale_that_is_no_length(tmp_path: Path, changes: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(EdgeAdError, match="points_scale_m is (None|0.0); expected metres > 0"):
        _ = tiny_bundle(tmp_path / "b", **changes).points_scale_m


@pytest.mark.parametrize("balance", [None, [1, 2], [1, 2, 0], [1, 2, "3"], 1.0])
def test_a_balance_that_is_none(tmp_path: Path, balance: object) -> None:
    with pytest.raises(EdgeAdError, match="expected three numbers > 0"):
        _ = tiny_bundle(tmp_path / "b", fusion={"balance": balance}).balance


def test_thresholds_are_kept_and_others_stay(bundle: Bundle) -> None:
    assert bundle.threshold("cap", "fp32") is None
    first = bundle.with_thresholds({"cap": THRESHOLD}, "fp32")
    bundle.with_thresholds(
        {"bracket": replace(THRESHOLD, value=2.0, lost_share=0.1, anchor_distance=1.2, augmented=True)},
        "int8",
        variant="red",
    )  # from a stale object
    opened = Bundle.open(bundle.path)
    assert first.threshold("cap", "fp32") == opened.threshold("cap", "fp32") == THRESHOLD
    got = opened.threshold("bracket", "int8", "red")
    assert got is not None
    assert (got.value, got.lost_share, got.anchor_distance, got.augmented) == (2.0, 0.1, 1.2, True)
    assert opened.threshold("bracket", "int8") is None


@pytest.mark.parametrize(
    ("threshold", "precision", "text"),
    [
        (replace(THRESHOLD, value=float("nan")), "fp32", "value is nan"),
        (replace(THRESHOLD, mask_value=float("inf")), "fp32", "mask_value is inf"),
        (replace(THRESHOLD, false_reject_rate=1.5), "fp32", "rate in 0..1"),
        (replace(THRESHOLD, lost_share=-0.1), "fp32", "a share >= 0"),
        (replace(THRESHOLD, anchor_distance=float("nan")), "fp32", "anchor_distance is nan"),
        (THRESHOLD, "fp4", "unknown precision"),
    ],
)
def test_bad_thresholds_change_nothing(bundle: Bundle, threshold: Threshold, precision: str, text: str) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(EdgeAdError, match=text):
        bundle.with_thresholds({"cap": threshold}, precision)
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_unknown_names_list_the_known(bundle: Bundle) -> None:
    for call, text in (
        (lambda: bundle.graph("nope"), "rgb, points, tokens, score"),
        (lambda: bundle.graph_path("rgb", "fp16"), "no fp16 graph .*use --precision fp32"),
        (lambda: bundle.graph_path("rgb", "fp8"), "fp32, fp16, int8"),
        (lambda: bundle.threshold("nut", "fp32"), "bracket, cap"),
        (lambda: bundle.scene("nut"), "bracket, cap"),
    ):
        with pytest.raises(EdgeAdError, match=text):
            call()


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, anchors=np.array([{"a": 1}, {}], dtype=object))
    opened = tiny_bundle(tmp_path / "b", extra_files={"anchors.npz": buffer.getvalue()})
    with pytest.raises(EdgeAdError, match="cannot be read"):
        _ = opened.anchors


@pytest.mark.parametrize(
    ("anchors", "text"),
    [(np.zeros((3, 4), np.float32), r"float32 \(3, 4\)"), (np.zeros((2, 4)), r"float64"), (None, "no array 'anchors'")],
)
def test_anchors_that_do_not_fit(tmp_path: Path, anchors: np.ndarray | None, text: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **({} if anchors is None else {"anchors": anchors}))
    opened = tiny_bundle(tmp_path / "b", extra_files={"anchors.npz": buffer.getvalue()})
    with pytest.raises(EdgeAdError, match=text):
        _ = opened.anchors
