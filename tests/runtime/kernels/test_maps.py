"""Smoothing, statistics, mask, boxes and the way back to the camera's grid."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.frame import SampleTransform
from edge_ad.presets import load_preset
from edge_ad.runtime import maps
from edge_ad.runtime.device.frame import MOST_AREAS
from edge_ad.runtime.device.judge import read_regions
from edge_ad.runtime.kernels.launch import MEASURES, REGION_FIELDS, STAT_FIELDS, per_thread, smoothing
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import module, start

FUSION = replace(load_preset("paper").fusion, smoothing="box-cascade", smooth_over="image", rim=0, spread=0)
schedules = st.tuples(st.sampled_from(SCHEDULES), st.integers(0, 9))


def smooth(image: np.ndarray, fusion, valid: np.ndarray, schedule: tuple[str, int]) -> np.ndarray:  # type: ignore[no-untyped-def]
    filters = smoothing(fusion)
    assert filters is not None
    size, m = len(image), module("smooth", schedule)
    run = start(m.smooth, filters.launch(size))
    table = (len(filters.radius), filters.radius, filters.scale, filters.taps, filters.rim)
    weight = None
    if fusion.smooth_over == "valid":
        ones, weight = np.full((size, size), np.nan, np.float32), np.full((size, size), np.nan, np.float32)
        image = image.copy()
        weigh = start(m.rim_weight, per_thread(size * size))
        weigh(valid, size, fusion.rim, maps.RIM_WEIGHT, ones, image)
        np.testing.assert_array_equal(ones, maps.rim_weight(valid, fusion.rim))
        run(ones, size, *table, None, None, weight)
    out, inside = np.full((size, size), np.nan, np.float32), None if fusion.spread else valid
    run(image, size, *table, inside, weight, out)
    if fusion.spread:
        top, launch = np.zeros(1, np.int32), per_thread(size * size)
        start(m.top_of_valid, launch)(out, valid, size * size, top)
        start(m.spread_map, launch)(valid, size, fusion.spread, top, out)
    return out


@needs_compiler
@pytest.mark.parametrize(
    ("over", "rim", "spread"), [("image", 0, 0), ("valid", 0, 0), ("valid", 3, 0), ("valid", 2, 5)]
)
@pytest.mark.parametrize("how", ["box-cascade", 0.8, 4.0])
@pytest.mark.parametrize(("size", "schedule"), [(20, ("random", 1)), (45, ("reverse", 0)), (224, ("forward", 0))])
def test_smoothing(size: int, over: str, rim: int, spread: int, how: str | float, schedule: tuple[str, int]) -> None:
    rng = np.random.default_rng(size)
    valid = rng.random((size, size)) < (0.98 if rim else 0.7)
    valid[size // 2 :, size // 3 :] &= not spread  # a hole that the map runs into, and not all over it
    image = np.where(valid, rng.random((size, size)), 0).astype(np.float32)
    fusion = replace(FUSION, smooth_over=over, rim=rim, spread=spread)
    if isinstance(how, float):
        fusion = replace(fusion, smoothing="gaussian", sigma=how)
    expected = maps.smooth(image, fusion, valid)
    # OpenCV sums boxes in float64 and rounds every pass; here the sums are float32.
    np.testing.assert_allclose(smooth(image, fusion, valid, schedule), expected, rtol=0, atol=2e-6 * expected.max())


def test_a_smoothing_too_wide_for_shared_memory_is_refused() -> None:
    wide = smoothing(replace(FUSION, smoothing="gaussian", sigma=6.0))
    assert wide is not None
    with pytest.raises(EdgeAdError, match="smoothing that reaches 24 pixels"):
        wide.launch(224)
    assert smoothing(replace(FUSION, smoothing="none")) is None


@needs_compiler
@settings(max_examples=examples(25))
@given(st.integers(1, 4000), st.integers(0, 99), schedules)
def test_statistics(n: int, seed: int, schedule: tuple[str, int]) -> None:
    rng = np.random.default_rng(seed)
    image = np.where(rng.random(n) < 0.5, rng.normal(size=n), 0).astype(np.float32)
    found = np.full(3, np.nan)
    module("regions", schedule).map_statistics[1, 1024](image, n, found)
    assert found[0] == image.max() and found[2] == (image != 0).sum()
    assert found[1] == pytest.approx(image.sum(dtype=np.float64), abs=1e-9)


@needs_compiler
@settings(max_examples=examples(25))
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 99), schedules)
def test_threshold_reaches_three_pixels_beyond_the_part(
    height: int, width: int, seed: int, schedule: tuple[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((height, width), dtype=np.float32)
    valid = rng.random((height, width)) < 0.02
    limits, which = np.float32([9.0, 0.4]), np.array([1], np.int32)
    mask = np.full((height, width), 9, np.uint8)
    run = start(module("regions", schedule).threshold_map, per_thread(mask.size))
    run(image, valid, height, width, limits, which, mask)
    near = cv2.dilate(valid.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0  # as edge_ad.runtime.finish
    np.testing.assert_array_equal(mask > 0, (image > np.float32(0.4)) & near)


VERDICT_COUNTS = {"enough": (50, 3, 52, 40, 20), "few valid": (19, 0, 19, 19, 19), "few measured": (50, 0, 50, 7, 20)}


@needs_compiler
@pytest.mark.parametrize("counts", VERDICT_COUNTS)
@pytest.mark.parametrize("over_rms", [0, 1])
def test_the_verdict_of_a_part(counts: str, over_rms: int) -> None:
    values = np.float32([0, 0.5, 1.5, 0.25])
    fusion = replace(FUSION, score="max-over-rms" if over_rms else "max")
    wanted = maps.image_score(values, fusion)
    given = np.array(VERDICT_COUNTS[counts], np.int32)
    statistics = np.array([1.5, 2.25, 3.0])
    for limit, above in ((wanted * 0.99, 1), (wanted * 1.01, 0), (np.nan, 0)):
        for factor, overflow in ((1.0, 0), (0.0, 0), (1.0, 2)):
            score, verdict = np.full(1, np.nan), np.full(2, -9, np.int32)
            frame, limits = np.float32([0, 0, 0, factor]), np.array([0.0, limit])
            module("regions").part_verdict[1, 1](
                given, frame, np.array([overflow], np.int32), statistics, over_rms, limits, np.array([1], np.int32),
                20, 8, score, verdict,
            )  # fmt: skip
            assert score[0] == pytest.approx(wanted, rel=1e-15)
            assert verdict.tolist() == [counts == "enough" and factor == 1 and overflow == 0, above]


@needs_compiler
def test_a_map_with_nan_has_no_score() -> None:
    found, image = np.zeros(3), np.float32([1, np.nan, 2])
    module("regions").map_statistics[1, 1024](image, 3, found)
    score, verdict = np.zeros(1), np.zeros(2, np.int32)
    module("regions").part_verdict[1, 1](
        np.full(5, 99, np.int32), np.float32([0, 0, 0, 1]), np.zeros(1, np.int32), found, 0, np.zeros(1),
        np.zeros(1, np.int32), 1, 1, score, verdict,
    )  # fmt: skip
    assert np.isnan(score[0]) and verdict.tolist() == [1, 0]


def regions(
    image: np.ndarray, mask: np.ndarray, least: int, most: int, schedule: tuple[str, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mask without small areas, rows (root, area, x0, y0, x1, y1, peak bits, first block) by root, how many."""
    height, width = mask.shape
    n, m = mask.size, module("regions", schedule)
    labels, stats = np.full(n, -9, np.int32), np.full((n, STAT_FIELDS), -9, np.int32)
    out, found, launch = mask.astype(np.uint8), np.zeros(1, np.int32), per_thread(n)
    boxes = np.full((most, REGION_FIELDS), -9, np.int32)
    start(m.label_start, launch)(out, n, labels, stats)
    start(m.label_join, launch)(height, width, labels)
    start(m.label_measure, launch)(image, height, width, labels, stats)
    start(m.label_collect, launch)(labels, stats, n, least, most, out, boxes, found)
    listed = boxes[: min(most, found[0])]
    return out.astype(bool), listed[np.argsort(listed[:, 0])], int(found[0])


def snake(height: int, width: int) -> np.ndarray:
    """One area that winds through the whole image: the longest chains of labels."""
    mask = np.zeros((height, width), bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


@needs_compiler
@settings(max_examples=examples(40))
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.1, 0.45, 0.6, 1.0, 2.0]),
    st.integers(1, 6),
    st.integers(0, 99),
    schedules,
)
def test_connected_areas_are_opencvs(
    height: int, width: int, share: float, least: int, seed: int, schedule: tuple[str, int]
) -> None:
    rng = np.random.default_rng(seed)
    mask = snake(height, width) if share > 1 else rng.random((height, width)) < share
    image = rng.normal(size=(height, width)).astype(np.float32)
    kept, rows, many = regions(image, mask, least, 1000, schedule)
    np.testing.assert_array_equal(kept, maps.drop_small(mask, least))
    found, labels, stats, _ = cv2.connectedComponentsWithStats(kept.astype(np.uint8), connectivity=8)
    assert many == len(rows) == found - 1
    for row in rows:
        label = labels.ravel()[row[0]]
        x, y, w, h, area = (int(v) for v in stats[label])
        assert row[1:6].tolist() == [area, x, y, x + w, y + h]
        assert row[6:7].view(np.float32)[0] == image[labels == label].max()
        assert row[0] == np.flatnonzero(labels.ravel() == label)[0]
    # OpenCV numbers areas by their first block of 2 x 2.
    by_block = sorted(rows.tolist(), key=lambda row: row[7])
    assert [labels.ravel()[row[0]] for row in by_block] == list(range(1, found))


@needs_compiler
def test_more_areas_than_the_list_holds_are_counted() -> None:
    mask = np.zeros((9, 9), bool)
    mask[::2, ::2] = True
    _, rows, many = regions(np.ones((9, 9), np.float32), mask, 1, 10, ("random", 3))
    assert many == 25 and len(rows) == 10 and (rows[:, 1] == 1).all()


@needs_compiler
@settings(max_examples=examples(40))
@given(
    st.integers(1, 40), st.integers(1, 60), st.integers(-15, 15), st.integers(-15, 15), st.integers(0, 99), schedules
)
def test_back_to_the_camera(size: int, side: int, y0: int, x0: int, seed: int, schedule: tuple[str, int]) -> None:
    rng = np.random.default_rng(seed)
    t = SampleTransform(y0, x0, side, size, 33, 41)
    out_map = np.zeros((33, 41), np.float32)
    out_mask, out_lost = np.zeros((33, 41), np.uint8), np.zeros((33, 41), np.uint8)
    expected_map, expected = np.zeros((33, 41), np.float32), np.zeros((2, 33, 41), bool)
    for judged in (1, 0, 1):  # the parts of one frame join; one that cannot be judged is left out
        image = rng.random((size, size), dtype=np.float32)
        masks = rng.random((2, size, size)) < 0.1
        run = start(module("camera", schedule).to_camera, per_thread(33 * 41))
        verdict = np.array([judged, 1], np.int32)
        run(image, *masks, verdict, size, y0, x0, side, 33, 41, out_map, out_mask, out_lost)
        if judged and y0 < 33 and x0 < 41 and y0 + side > 0 and x0 + side > 0:
            expected_map = np.maximum(expected_map, maps.map_to_camera(image, t))
            expected |= np.stack([maps.mask_to_camera(mask, t) for mask in masks])
    np.testing.assert_array_equal(np.stack([out_mask, out_lost]) > 0, expected)
    np.testing.assert_allclose(out_map, expected_map, rtol=0, atol=5e-6)


@needs_compiler
@pytest.mark.parametrize("verdict", [(1, 1), (1, 0)])
@pytest.mark.parametrize("kept", [0, 2])
def test_an_anomalous_part_always_shows_where(verdict: tuple[int, int], kept: int) -> None:
    labels = np.int32([-1, 1, 1, 3, -1])
    mask = np.zeros(5, np.uint8)
    run = start(module("regions").keep_above, per_thread(5))
    run(labels, np.array(verdict, np.int32), np.array([kept], np.int32), 5, mask)
    assert mask.tolist() == ([0, 1, 1, 1, 0] if verdict[1] and not kept else [0] * 5)


@needs_compiler
@settings(max_examples=examples(25))
@given(st.integers(1, 40), st.integers(1, 50), st.floats(0.02, 0.6), st.integers(0, 99), schedules)
def test_areas_measured_in_space(height: int, width: int, share: float, seed: int, schedule: tuple[str, int]) -> None:
    """Area, position and extent as find_regions has them, pixels without depth included; ties in OpenCV's order."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    y, x = np.mgrid[:height, :width]
    z = 0.5 + 0.01 * np.sin(x / 5) + rng.normal(0, 1e-3, x.shape)
    z[rng.random(x.shape) < 0.2] = 0
    xyz = np.stack([(x - width / 2) / 600 * z, (y - height / 2) / 610 * z, z], axis=-1).astype(np.float32)
    image = rng.integers(0, 3, (height, width)).astype(np.float32)  # many equal peaks
    most, n, m = 400, mask.size, module("regions", schedule)
    labels, stats = np.full(n, -9, np.int32), np.full((n, STAT_FIELDS), -9, np.int32)
    boxes, found = np.full((most, REGION_FIELDS), -9, np.int32), np.zeros(1, np.int32)
    out, launch = mask.astype(np.uint8), per_thread(n)
    start(m.label_start, launch)(out, n, labels, stats)
    start(m.label_join, launch)(height, width, labels)
    start(m.label_measure, launch)(image, height, width, labels, stats)
    start(m.label_collect, launch)(labels, stats, n, 1, most, out, boxes, found)
    measures = np.full((most, MEASURES), np.nan)
    m.region_measures[most, 256](labels, boxes, found, most, xyz, height, width, measures)

    def fetched(array: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(read=lambda: array)

    listed = SimpleNamespace(out_count=fetched(found), out_boxes=fetched(boxes), out_measures=fetched(measures))
    expected = maps.find_regions(mask, image, xyz)
    got = read_regions(listed, "anomaly")  # type: ignore[arg-type]
    if len(expected) > MOST_AREAS:
        assert got is None
        return
    assert got is not None and [(r.box, r.area_px, r.peak, r.extent_mm) for r in got] == [
        (r.box, r.area_px, r.peak, r.extent_mm) for r in expected
    ]
    for a, b in zip(got, expected):
        assert a.area_mm2 == pytest.approx(b.area_mm2, rel=1e-12)
        assert a.position_mm == (None if b.position_mm is None else pytest.approx(b.position_mm, rel=1e-12))
