"""Smoothing equals the reference's, maps and masks find back to the camera, regions are measured in mm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.frame import SampleTransform
from edge_ad.models import distance
from edge_ad.presets import Fusion, load_preset
from edge_ad.runtime.geometry import depth_to_xyz
from edge_ad.runtime.maps import drop_small, find_regions, image_score, map_to_camera, mask_to_camera, smooth
from edge_ad.runtime.preprocess import mask_to_sample
from tests.frames import intrinsics

FUSION = load_preset("compact").fusion


def fusion(**changes: object) -> Fusion:
    return replace(FUSION, **changes)  # type: ignore[arg-type]


def random_map(size: int, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    valid = rng.random((size, size)) < share
    return np.where(valid, rng.random((size, size)), 0).astype(np.float32), valid


@settings(max_examples=40)
@given(
    st.sampled_from(["box-cascade", "gaussian", "none"]),
    st.sampled_from(["image", "valid"]),
    st.integers(20, 90),
    st.floats(0.5, 6),
    st.sampled_from([0.02, 0.5, 1.0]),
    st.integers(0, 2**31),
    st.sampled_from([0, 1, 5]),
    st.sampled_from([0, 2, 7]),
)
def test_smoothing_is_the_references(
    method: str, over: str, size: int, sigma: float, share: float, seed: int, rim: int, spread: int
) -> None:
    anomaly, valid = random_map(size, seed, share)
    ours = smooth(
        anomaly.copy(), fusion(smoothing=method, smooth_over=over, sigma=sigma, rim=rim, spread=spread), valid
    )
    x, inside = torch.from_numpy(anomaly), torch.from_numpy(valid)
    if over == "image":
        expected = distance.smooth(x, method, sigma)
    else:
        expected = distance.smooth_over_valid(x, inside, method, sigma, rim, spread)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=1e-6)


def test_a_mean_over_valid_pixels_is_not_pulled_down_beside_lost_depth() -> None:
    anomaly = np.zeros((60, 60), np.float32)
    valid = np.zeros((60, 60), bool)
    valid[:, :30] = True
    anomaly[valid] = 1
    over_valid = smooth(anomaly, fusion(smooth_over="valid", rim=0, spread=0), valid)
    over_image = smooth(anomaly, fusion(smooth_over="image"), valid)
    np.testing.assert_allclose(over_valid[valid], 1, atol=1e-5)
    assert (over_valid[~valid] == 0).all()
    assert over_image[30, 29] < 0.6 and over_image[30, 31] > 0.2


def _loud_rim(width: int) -> tuple[np.ndarray, np.ndarray]:
    """A part as a bar; its outermost ``width`` pixels are loud."""
    valid = np.zeros((80, 80), bool)
    valid[20:60] = True
    loud = valid.copy()
    loud[20 + width : 60 - width] = False
    return np.where(loud, 10, np.where(valid, 1, 0)).astype(np.float32), valid


def test_a_loud_rim_hardly_counts_and_a_part_that_is_all_rim_keeps_its_map() -> None:
    anomaly, valid = _loud_rim(4)
    plain = smooth(anomaly, fusion(smooth_over="valid", sigma=3.0, rim=0, spread=0), valid)
    without = smooth(anomaly, fusion(smooth_over="valid", sigma=3.0, rim=4, spread=0), valid)
    assert plain[valid].max() > 5 and without[valid].max() < 2.5
    wire, inside = np.zeros((80, 80), np.float32), np.zeros((80, 80), bool)
    inside[38:42], wire[38:42] = True, 3
    np.testing.assert_allclose(
        smooth(wire, fusion(smooth_over="valid", sigma=3.0, rim=4, spread=0), inside)[inside], 3, rtol=1e-5
    )


def test_the_border_of_the_grid_is_no_rim() -> None:
    anomaly = np.ones((40, 40), np.float32)
    anomaly[0] = 10
    valid = np.ones((40, 40), bool)
    f = fusion(smooth_over="valid", sigma=2.0, spread=0)
    np.testing.assert_array_equal(smooth(anomaly, replace(f, rim=5), valid), smooth(anomaly, replace(f, rim=0), valid))


def test_a_map_that_runs_over_the_border_never_changes_the_score() -> None:
    anomaly, valid = random_map(60, 5, 0.3)
    valid[:, 40:] = False
    anomaly[~valid] = 0
    f = fusion(smooth_over="valid", sigma=4.0, rim=0)
    plain, wide = smooth(anomaly, replace(f, spread=0), valid), smooth(anomaly, replace(f, spread=6), valid)
    np.testing.assert_array_equal(plain[valid], wide[valid])
    assert wide.max() == plain.max() and (wide[:, 40:44] > 0).any() and (wide[:, 47:] == 0).all()


@pytest.mark.parametrize("method", ["max", "max-over-rms"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_image_score_is_the_references(method: str, share: float) -> None:
    anomaly, _ = random_map(50, 3, share)
    expected = float(distance.image_score(torch.from_numpy(anomaly), method))
    assert image_score(anomaly, fusion(score=method)) == pytest.approx(expected, rel=1e-5)


TRANSFORMS = st.builds(
    lambda side, size, h, w, fy, fx: SampleTransform(round((h - side) * fy), round((w - side) * fx), side, size, h, w),
    st.integers(3, 200),
    st.integers(4, 96),
    st.integers(10, 160),
    st.integers(10, 160),
    st.floats(0, 1),
    st.floats(0, 1),
)


@settings(max_examples=150)
@given(TRANSFORMS, st.integers(0, 2**31), st.sampled_from([0.01, 0.3]))
def test_no_true_pixel_inside_the_image_is_lost_on_the_way_to_the_camera(
    t: SampleTransform, seed: int, share: float
) -> None:
    inside = mask_to_sample(np.ones((t.frame_height, t.frame_width), bool), t)
    mask = inside & (np.random.default_rng(seed).random((t.size, t.size)) < share)
    camera = mask_to_camera(mask, t)
    assert camera.shape == (t.frame_height, t.frame_width)
    rows, cols = t.source_rows(), t.source_cols()
    r, c = np.nonzero(mask)
    assert camera[rows[r], cols[c]].all()
    assert mask.any() == camera.any()
    window = np.zeros_like(camera)
    window[max(0, t.y0) : max(0, t.y0 + t.side), max(0, t.x0) : max(0, t.x0 + t.side)] = True
    assert not (camera & ~window).any()


@given(TRANSFORMS.filter(lambda t: t.side >= t.size))
def test_a_mask_goes_to_the_camera_and_back_unchanged(t: SampleTransform) -> None:
    inside = mask_to_sample(np.ones((t.frame_height, t.frame_width), bool), t)
    mask = inside & (np.random.default_rng(0).random((t.size, t.size)) < 0.3)
    np.testing.assert_array_equal(mask_to_sample(mask_to_camera(mask, t), t), mask)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (333, 517), (90, 120)])
def test_a_map_lands_where_it_came_from(height: int, width: int) -> None:
    side = max(height, width)
    t = SampleTransform((height - side) // 2, (width - side) // 2, side, 224, height, width)
    y, x = np.mgrid[:224, :224]
    blob = np.exp(-((y - 100) ** 2 + (x - 140) ** 2) / 200).astype(np.float32)
    camera = map_to_camera(blob, t)
    assert camera.shape == (height, width) and camera.dtype == np.float32
    cy, cx = np.indices(camera.shape)
    centre = (cy * camera).sum() / camera.sum(), (cx * camera).sum() / camera.sum()
    expected = t.y0 + 100.5 * side / 224 - 0.5, t.x0 + 140.5 * side / 224 - 0.5
    np.testing.assert_allclose(centre, expected, atol=0.05)
    assert camera.max() == pytest.approx(1, abs=0.05)


def test_a_map_is_zero_outside_its_window() -> None:
    t = SampleTransform(20, 30, 40, 16, 100, 120)
    camera = map_to_camera(np.ones((16, 16), np.float32), t)
    expected = np.zeros((100, 120), np.float32)
    expected[20:60, 30:70] = 1
    np.testing.assert_array_equal(camera, expected)


def test_drop_small_counts_diagonal_neighbours() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2, 2] = mask[3, 3] = mask[4, 4] = True
    mask[10, 10] = mask[10, 11] = True
    kept = drop_small(mask, 3)
    assert kept[2, 2] and kept[4, 4] and not kept[10, 10]
    assert drop_small(mask, 1) is mask
    assert not drop_small(np.zeros((5, 5), bool), 3).any()


def plane(height: int = 200, width: int = 300, z: float = 0.5, focal: float = 400.0) -> np.ndarray:
    depth = np.full((height, width), round(z * 1e4), np.uint16)
    return depth_to_xyz(depth, 1e-4, intrinsics(height, width, focal))


def test_region_on_a_plane_of_known_size() -> None:
    xyz = plane()
    mask = np.zeros((200, 300), bool)
    mask[50:90, 100:160] = True
    anomaly = np.where(mask, 0.3, 0).astype(np.float32)
    anomaly[60, 120] = 0.9
    (region,) = find_regions(mask, anomaly, xyz)
    pixel_mm = 0.5 / 400 * 1000
    assert region.box == (100, 50, 160, 90) and region.area_px == 2400
    assert region.area_mm2 == pytest.approx(2400 * pixel_mm**2, rel=1e-3)
    assert region.peak == pytest.approx(0.9)
    assert region.position_mm is not None and region.extent_mm is not None
    expected = ((129.5 - 149.5) * pixel_mm, (69.5 - 99.5) * pixel_mm, 500.0)
    np.testing.assert_allclose(region.position_mm, expected, atol=0.01)
    np.testing.assert_allclose(region.extent_mm, (59 * pixel_mm, 39 * pixel_mm, 0), atol=0.01)


def test_a_jump_of_depth_inside_a_region_does_not_change_its_area() -> None:
    near, far = plane(z=0.4), plane(z=0.6)
    xyz = far.copy()
    xyz[:, :150] = near[:, :150]
    mask = np.zeros((200, 300), bool)
    mask[50:70, 140:160] = True
    (region,) = find_regions(mask, mask.astype(np.float32), xyz)
    assert region.area_mm2 == pytest.approx(200 * ((0.4 / 400) ** 2 + (0.6 / 400) ** 2) * 1e6, rel=1e-3)


def test_pixels_without_depth_count_as_the_mean_of_the_others() -> None:
    xyz = plane()
    mask = np.zeros((200, 300), bool)
    mask[50:90, 100:160] = True
    xyz[55:70, 110:130] = 0
    (region,) = find_regions(mask, mask.astype(np.float32), xyz)
    assert region.area_mm2 == pytest.approx(2400 * 1.25**2, rel=1e-3)


def test_a_region_at_the_images_corner_still_has_an_area() -> None:
    xyz = plane()
    mask = np.zeros((200, 300), bool)
    mask[:10, :10] = True
    (region,) = find_regions(mask, mask.astype(np.float32), xyz)
    assert region.area_mm2 == pytest.approx(100 * 1.25**2, rel=1e-3)


def test_a_region_without_depth_has_no_position() -> None:
    xyz = plane()
    mask = np.zeros((200, 300), bool)
    mask[50:60, 100:110] = True
    xyz[40:70, 90:120] = 0
    (region,) = find_regions(mask, mask.astype(np.float32), xyz, kind="lost-depth")
    assert (region.area_mm2, region.position_mm, region.extent_mm) == (0.0, None, None)
    assert region.kind == "lost-depth" and region.area_px == 100


def test_regions_come_strongest_first_and_each_has_its_own_peak() -> None:
    mask = np.zeros((50, 50), bool)
    anomaly = np.zeros((50, 50), np.float32)
    for (y, x), peak in {(5, 5): 0.2, (20, 20): 0.8, (40, 5): 0.5}.items():
        mask[y : y + 4, x : x + 4] = True
        anomaly[y + 1, x + 1] = peak
    mask[9, 9] = True  # touches the first at a corner: one region
    regions = find_regions(mask, anomaly, np.zeros((50, 50, 3), np.float32))
    assert [round(r.peak, 3) for r in regions] == [0.8, 0.5, 0.2]
    assert regions[-1].area_px == 17
    assert find_regions(np.zeros((5, 5), bool), anomaly[:5, :5], np.zeros((5, 5, 3), np.float32)) == ()
