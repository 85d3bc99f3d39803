"""Smoothing, statistics, mask, boxes and the way back to the camera's grid."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.frame import SampleTransform
from edge_ad.presets import load_preset
from edge_ad.runtime import maps
from edge_ad.runtime.kernels.launch import REGION_FIELDS, STAT_FIELDS, per_thread, smoothing
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import module, start

FUSION = replace(load_preset("paper").fusion, smoothing="box-cascade", smooth_over="image")
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
        start(m.mask_to_float, per_thread(size * size))(valid, size * size, ones)
        run(ones, size, *table, None, None, weight)
    out = np.full((size, size), np.nan, np.float32)
    run(image, size, *table, valid, weight, out)
    return out


@needs_compiler
@pytest.mark.parametrize("over", ["image", "valid"])
@pytest.mark.parametrize("how", ["box-cascade", 0.8, 4.0])
@pytest.mark.parametrize(("size", "schedule"), [(20, ("random", 1)), (45, ("reverse", 0)), (224, ("forward", 0))])
def test_smoothing(size: int, over: str, how: str | float, schedule: tuple[str, int]) -> None:
    rng = np.random.default_rng(size)
    valid = rng.random((size, size)) < 0.7
    image = np.where(valid, rng.random((size, size)), 0).astype(np.float32)
    fusion = replace(FUSION, smooth_over=over)
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
    for part in (valid, None):
        mask = np.full((height, width), 9, np.uint8)
        run = start(module("regions", schedule).threshold_map, per_thread(mask.size))
        run(image, part, height, width, 0.4, mask)
        near = np.ones(valid.shape, bool)
        if part is not None:
            near = cv2.dilate(valid.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0  # as edge_ad.runtime.detector
        np.testing.assert_array_equal(mask > 0, (image > np.float32(0.4)) & near)


def regions(
    image: np.ndarray, mask: np.ndarray, least: int, most: int, schedule: tuple[str, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mask without small areas, rows (root, area, x0, y0, x1, y1, peak bits) by root, and how many there are."""
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
    out_map, out_mask = np.zeros((33, 41), np.float32), np.zeros((33, 41), np.uint8)
    expected_map, expected_mask = np.zeros((33, 41), np.float32), np.zeros((33, 41), bool)
    for _ in range(2):  # the parts of one frame join
        image = rng.random((size, size), dtype=np.float32)
        mask = rng.random((size, size)) < 0.1
        run = start(module("camera", schedule).to_camera, per_thread(33 * 41))
        run(image, mask, size, y0, x0, side, 33, 41, out_map, out_mask)
        if y0 < 33 and x0 < 41 and y0 + side > 0 and x0 + side > 0:
            expected_map = np.maximum(expected_map, maps.map_to_camera(image, t))
            expected_mask |= maps.mask_to_camera(mask, t)
    np.testing.assert_array_equal(out_mask > 0, expected_mask)
    np.testing.assert_allclose(out_map, expected_map, rtol=0, atol=5e-6)
