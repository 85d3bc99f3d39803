"""Depth to points, the supporting plane, clusters."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.errors import InvalidFrame
from edge_ad.frame import Frame, Intrinsics
from edge_ad.runtime.geometry import border_ring, clusters, depth_to_xyz, fit_plane, frame_xyz
from tests.frames import boxes, intrinsics


def test_pinhole_by_hand() -> None:
    k = Intrinsics(6, 4, 100.0, 200.0, 2.0, 1.0)
    depth = np.zeros((4, 6), np.uint16)
    depth[3, 5], depth[1, 2] = 500, 250
    xyz = depth_to_xyz(depth, 0.001, k)
    assert xyz.shape == (4, 6, 3) and xyz.dtype == np.float32
    np.testing.assert_allclose(xyz[3, 5], [(5 - 2) / 100 * 0.5, (3 - 1) / 200 * 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(xyz[1, 2], [0, 0, 0.25], rtol=1e-6)
    assert np.count_nonzero(xyz.any(axis=2)) == 2


@given(st.floats(-0.3, 0.3), st.floats(-0.05, 0.05), st.floats(-0.01, 0.01))
def test_distorted_pixels_project_back_onto_themselves(k1: float, k2: float, p1: float) -> None:
    k = intrinsics(30, 40, focal=60.0, distortion=(k1, k2, p1, 0.0, 0.0))
    xyz = depth_to_xyz(np.full((30, 40), 500, np.uint16), 0.001, k)
    inner = xyz[8:22, 10:30]  # far out, undistortion has no exact inverse
    matrix = np.array([[k.fx, 0, k.ppx], [0, k.fy, k.ppy], [0, 0, 1]])
    pixels, _ = cv2.projectPoints(
        inner.reshape(-1, 1, 3).astype(np.float64), np.zeros(3), np.zeros(3), matrix, np.array(k.distortion)
    )
    x, y = np.meshgrid(np.arange(10, 30), np.arange(8, 22))
    np.testing.assert_allclose(pixels.reshape(14, 20, 2), np.stack([x, y], axis=-1), atol=0.02)
    np.testing.assert_allclose(xyz[..., 2], 0.5)


def test_float_depth_with_nan_infinity_and_negatives_is_zero_there() -> None:
    depth = np.full((4, 6), 0.5, np.float32)
    depth[0, :4] = [np.nan, np.inf, -1, -np.inf]
    with np.errstate(all="raise"):
        xyz = depth_to_xyz(depth, 1.0, intrinsics(4, 6))
    assert np.isfinite(xyz).all()
    assert not xyz[0, :4].any() and (xyz[1:, :, 2] == 0.5).all()


def test_xyz_with_nan_is_zero_there_and_the_frame_stays_as_it_was() -> None:
    xyz = np.full((4, 6, 3), 0.5, np.float32)
    xyz[0, 0, 0], xyz[0, 1, 2], xyz[0, 2, 2] = np.nan, -1, np.inf
    before = xyz.copy()
    got = frame_xyz(Frame(np.zeros((4, 6, 3), np.uint8), xyz=xyz))
    assert not got[0, :3].any() and (got[1:] == 0.5).all()
    np.testing.assert_array_equal(xyz, before)


def test_xyz_of_any_layout_and_type_gives_the_same_cloud() -> None:
    cloud = np.random.default_rng(0).normal(0.5, 0.4, (5, 7, 3))
    cloud[2, 3] = np.nan
    colour = np.zeros((5, 7, 3), np.uint8)
    plain = frame_xyz(Frame(colour, xyz=cloud.astype(np.float32)))
    sound = np.isfinite(cloud).all(axis=2) & (cloud[..., 2] > 0)
    np.testing.assert_array_equal(plain, np.where(sound[..., None], cloud, 0).astype(np.float32))
    for other in (cloud, np.asfortranarray(cloud.astype(np.float32))):
        np.testing.assert_array_equal(frame_xyz(Frame(colour, xyz=other)), plain)


COLOUR = np.zeros((4, 6, 3), np.uint8)
DEPTH = np.full((4, 6), 500, np.uint16)
K = intrinsics(4, 6)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(COLOUR, DEPTH * 0, intrinsics=K), "no pixel has depth"),
        (Frame(COLOUR, np.full((4, 6), np.nan, np.float32), intrinsics=K), "no pixel has depth"),
        (Frame(COLOUR, xyz=np.full((4, 6, 3), np.nan, np.float32)), "no pixel has depth"),
        (Frame(COLOUR, DEPTH), "without intrinsics"),
        (Frame(COLOUR), "neither depth nor xyz"),
        (Frame(COLOUR[:, :5], DEPTH, intrinsics=K), "colour of 5 x 4 pixels and depth of 6 x 4"),
        (Frame(COLOUR, DEPTH[:3], intrinsics=K), "depth of 6 x 3 pixels; expected 6 x 4"),
        (Frame(COLOUR, DEPTH[0], intrinsics=K), r"depth of shape \(6,\)"),
        (Frame(COLOUR, xyz=np.ones((4, 6), np.float32)), r"xyz of shape \(4, 6\)"),
        (Frame(COLOUR[..., 0], DEPTH, intrinsics=K), "colour of shape"),
        (Frame(COLOUR.astype(np.float32), DEPTH, intrinsics=K), "uint8 RGB"),
    ],
)
def test_frames_that_cannot_be_used(frame: Frame, message: str) -> None:
    with pytest.raises(InvalidFrame, match=message):
        frame_xyz(frame)


def tilted_cloud(outliers: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points on a plane tilted by 20 degrees, with noise of 0.5 mm, and outliers above it; and the plane's normal."""
    rng = np.random.default_rng(seed)
    normal = np.array([0.0, np.sin(np.deg2rad(20)), -np.cos(np.deg2rad(20))])
    x, y = rng.uniform(-0.3, 0.3, (2, 3000))
    z = 0.6 - (normal[0] * x + normal[1] * y) / normal[2]
    points = np.stack([x, y, z], axis=1) + rng.normal(0, 0.0005, (3000, 1)) * normal
    points[:outliers] += rng.uniform(0.02, 0.15, (outliers, 1)) * normal
    return points.astype(np.float32), normal


@pytest.mark.parametrize("outliers", [0, 600, 1200])
def test_the_plane_survives_outliers(outliers: int) -> None:
    points, normal = tilted_cloud(outliers)
    plane = fit_plane(points, 0.005, 200)
    np.testing.assert_allclose(plane.normal, normal, atol=2e-3)
    assert plane.offset > 0  # the camera lies on the normal's side
    assert plane.inliers == pytest.approx(1 - outliers / 3000, abs=0.02)
    heights = plane.height(points)
    assert np.abs(heights[outliers:]).max() < 0.004
    assert outliers == 0 or heights[:outliers].min() > 0.015


def test_the_plane_is_the_same_every_time() -> None:
    points, _ = tilted_cloud(900)
    assert fit_plane(points, 0.005, 50) == fit_plane(points, 0.005, 50)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((2, 3), np.float32), "only 2 points"),
        (np.zeros((50, 3), np.float32), "on one line"),
        (np.arange(50, dtype=np.float32)[:, None] * np.ones(3, np.float32), "on one line"),
    ],
)
def test_no_plane(points: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidFrame, match=message):
        fit_plane(points, 0.005, 100)


def test_border_ring() -> None:
    has_depth = np.ones((50, 100), bool)
    has_depth[0] = False
    ring = border_ring(has_depth, 0.08)
    assert not ring[0].any() and ring[1:4].all() and ring[:, :4][1:].all()
    assert not ring[4:-4, 4:-4].any()


def test_border_ring_of_a_region_of_interest() -> None:
    has_depth = np.ones((50, 100), bool)
    region = np.zeros_like(has_depth)
    region[10:40, 20:80] = True
    ring = border_ring(has_depth, 0.1, region)
    assert int(ring.sum()) == 30 * 60 - 24 * 54
    assert ring[10:13, 20:80].all() and not ring[13:37, 23:77].any() and not (ring & ~region).any()
    assert not border_ring(has_depth, 0.1, np.zeros_like(region)).any()


def test_clusters_largest_first_small_ones_counted_and_gaps_bridged() -> None:
    foreground = np.zeros((80, 120), bool)
    foreground[10:50, 10:50] = True
    foreground[10:50, 28:31] = False  # a gap of lost depth does not cut the part in two
    foreground[10:30, 80:110] = True
    foreground[60:63, 60:63] = True
    has_depth = np.ones_like(foreground)
    has_depth[10:50, 28:31] = False
    found, small = clusters(foreground, has_depth, min_area=20)
    assert [c.area for c in found] == [40 * 37, 20 * 30]
    assert small == 1
    assert found[0].outline[20, 29] and not found[0].mask[20, 29]
    assert not (found[0].mask & found[1].mask).any()
    union = found[0].mask | found[1].mask
    assert (union | (np.indices(union.shape)[0] >= 60))[foreground].all()


def test_an_outline_contains_enclosed_lost_depth_but_not_a_hole_with_depth() -> None:
    foreground = np.zeros((80, 80), bool)
    foreground[10:70, 10:70] = True
    foreground[20:35, 20:35] = False  # lost depth
    foreground[45:60, 45:60] = False  # a hole through which the table is seen
    has_depth = np.ones_like(foreground)
    has_depth[20:35, 20:35] = False
    (part,), small = clusters(foreground, has_depth, 10)
    assert small == 0
    assert part.outline[20:35, 20:35].all()
    assert not part.outline[48:57, 48:57].any()
    np.testing.assert_array_equal(part.mask, foreground)


def test_a_part_in_a_corner_keeps_its_pixels() -> None:
    foreground = np.zeros((40, 40), bool)
    foreground[:12, :12] = True
    (part,), _ = clusters(foreground, np.ones_like(foreground), 10)
    np.testing.assert_array_equal(part.mask, foreground)


def test_no_foreground_is_no_cluster() -> None:
    nothing = np.zeros((40, 60), bool)
    assert clusters(nothing, ~nothing, 10) == ([], 0)


@pytest.mark.parametrize("seed", range(6))
def test_clusters_are_those_of_the_whole_image(seed: int) -> None:
    """Labelled in the box around the foreground; here on the whole image, as METHOD.md section 1 says it."""
    rng = np.random.default_rng(seed)
    foreground = np.zeros((97, 131), bool)
    for _ in range(5):
        y, x, h, w = rng.integers(1, [90, 120, 40, 50])
        foreground[y : y + h, x : x + w] = True
    foreground &= rng.random(foreground.shape) > 0.1
    has_depth = foreground | (rng.random(foreground.shape) > 0.3)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    padded = np.pad(foreground.astype(np.uint8), 8)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[8:-8, 8:-8]
    count, labels = cv2.connectedComponents(closed, connectivity=8)
    masks = [(labels == i) & foreground for i in range(1, count)]
    found, small = clusters(foreground, has_depth, 10)
    assert {c.mask.tobytes() for c in found} == {m.tobytes() for m in masks if m.sum() >= 10}
    assert small == count - 1 - len(found)
    for c in found:
        assert c.area == c.mask.sum() and (c.mask <= c.outline).all() and (c.outline <= (foreground | ~has_depth)).all()


def test_the_compiled_cloud_is_numpys_to_the_bit() -> None:
    k = intrinsics(31, 47)
    depth = np.random.default_rng(0).integers(0, 65536, (31, 47)).astype(np.uint16)
    depth[::5] = 0
    plain = depth_to_xyz(depth.astype(np.uint32), 1e-4, k)  # only 16 bit images go through the compiled loop
    assert depth_to_xyz(depth, 1e-4, k).tobytes() == plain.tobytes()
    assert depth_to_xyz(np.asfortranarray(depth), 1e-4, k).tobytes() == plain.tobytes()


def test_frame_of_boxes_is_what_the_helper_says() -> None:
    frame = boxes(40, 60, (10, 20, 30, 50))
    xyz = frame_xyz(frame)
    assert np.unique(xyz[..., 2].round(4)).tolist() == pytest.approx([0.47, 0.5])
    np.testing.assert_array_equal(frame_xyz(replace(frame, depth=None, intrinsics=None, xyz=xyz)), xyz)
