"""Depth on the colour grid: against a plain loop, its laws, and what it refuses."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.errors import InvalidFrame
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.runtime.geometry import frame_xyz
from edge_ad.runtime.registration import register_depth, registered

DEPTH_K = Intrinsics(24, 16, 20.0, 21.0, 11.3, 7.6)
COLOUR_K = Intrinsics(36, 26, 31.0, 30.0, 17.9, 12.4)
TURN = np.deg2rad(2.0)
BESIDE = Extrinsics(
    (np.cos(TURN), 0.0, np.sin(TURN), 0.0, 1.0, 0.0, -np.sin(TURN), 0.0, np.cos(TURN)), (0.012, -0.003, 0.002)
)


def by_loop(depth, scale, source, target, extrinsics):
    """The rule of rs2::align, pixel by pixel in Python, with the colour camera's z."""
    rotation, shift = np.reshape(extrinsics.rotation, (3, 3)), np.array(extrinsics.translation)
    out = np.zeros((target.height, target.width), depth.dtype)
    for v, u in np.argwhere(depth > 0):
        z = float(depth[v, u]) * scale
        corners = []
        for half in (-0.5, 0.5):
            ray = np.array([(u + half - source.ppx) / source.fx, (v + half - source.ppy) / source.fy, 1.0])
            p = rotation @ (ray * z) + shift
            corners.append((p[0] / p[2] * target.fx + target.ppx, p[1] / p[2] * target.fy + target.ppy, p[2]))
        (x0, y0), (x1, y1) = (tuple(int(np.floor(c + 0.5)) for c in corner[:2]) for corner in corners)
        if x0 < 0 or y0 < 0 or x1 >= target.width or y1 >= target.height:
            continue
        value = int((corners[0][2] + corners[1][2]) / 2 / scale + 0.5)
        block = out[y0 : y1 + 1, x0 : x1 + 1]
        block[(block == 0) | (block > value)] = value
    return out


def test_against_the_plain_loop():
    rng = np.random.default_rng(0)
    depth = rng.integers(4000, 4200, (16, 24)).astype(np.uint16)
    depth[4:9, 8:15] -= 900
    depth[rng.random(depth.shape) < 0.1] = 0
    ours = register_depth(depth, 1e-4, DEPTH_K, COLOUR_K, BESIDE)
    plain = by_loop(depth, 1e-4, DEPTH_K, COLOUR_K, BESIDE)
    assert (plain > 0).mean() > 0.6
    # float32 here, float64 there: a value may round the other way by one unit.
    assert np.abs(ours.astype(int) - plain).max() <= 1
    metres = register_depth((depth * np.float32(1e-4)).astype(np.float32), 1.0, DEPTH_K, COLOUR_K, BESIDE)
    assert np.abs(metres - plain * 1e-4).max() < 1e-4


@settings(max_examples=30)
@given(st.integers(1, 60000), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_a_plane_across_the_axis_stays_that_plane(units, x, y):
    depth = np.full((16, 24), units, np.uint16)
    out = register_depth(depth, 1e-4, DEPTH_K, DEPTH_K, Extrinsics(translation=(x, y, 0.0)))
    assert set(np.unique(out)) <= {0, units}


def test_near_surfaces_grow_by_at_most_a_pixel():
    """The squares of the rule overlap, so that no holes open: what is near takes a pixel of what lies behind it."""
    depth = np.full((16, 24), 8000, np.uint16)
    near = np.zeros(depth.shape, bool)
    near[5:11, 9:16] = True
    depth[near] = 3000
    out = register_depth(depth, 1e-4, DEPTH_K, DEPTH_K, Extrinsics())
    grown = cv2.dilate(near.astype(np.uint8), np.ones((3, 3))) > 0
    assert (out[near] == 3000).all() and not ((out == 3000) & ~grown).any()


def test_the_nearest_wins_and_nothing_is_invented():
    depth = np.zeros((16, 24), np.uint16)
    depth[:, :] = 8000
    depth[6:10, 10:14] = 3000
    out = register_depth(depth, 1e-4, DEPTH_K, COLOUR_K, Extrinsics(translation=(0.02, 0, 0)))
    assert set(np.unique(out)) == {0, 3000, 8000}
    assert register_depth(np.zeros_like(depth), 1e-4, DEPTH_K, COLOUR_K, BESIDE).max() == 0
    dirty = np.full((16, 24), np.nan, np.float32)
    dirty[3, 3], dirty[4, 4], dirty[5, 5] = np.inf, -1, 0.5
    out = register_depth(dirty, 1.0, DEPTH_K, COLOUR_K, Extrinsics())
    assert np.isfinite(out).all() and set(np.unique(out)) == {0, np.float32(0.5)}


def test_a_distorted_colour_camera_is_met_where_it_sees_the_point():
    coefficients = (-0.2, 0.05, 0.001, -0.002, 0.01)
    k = Intrinsics(360, 260, 310.0, 300.0, 179.0, 124.0, coefficients)
    depth = np.zeros((16, 24), np.uint16)
    depth[2, 3] = 5000
    out = register_depth(depth, 1e-4, DEPTH_K, k, Extrinsics())
    ray = np.array([[[(3 - DEPTH_K.ppx) / DEPTH_K.fx, (2 - DEPTH_K.ppy) / DEPTH_K.fy, 1.0]]])
    matrix = np.array([[k.fx, 0, k.ppx], [0, k.fy, k.ppy], [0, 0, 1]])
    seen = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, np.array(coefficients))[0].ravel()
    rows, columns = np.nonzero(out)
    assert abs(columns.mean() - seen[0]) < 1 and abs(rows.mean() - seen[1]) < 1


def test_what_is_refused():
    depth = np.full((16, 24), 5000, np.uint16)
    with pytest.raises(InvalidFrame, match="24 x 15.*24 x 16"):
        register_depth(depth[1:], 1e-4, DEPTH_K, COLOUR_K, BESIDE)
    big = Intrinsics(4000, 3000, 4000.0, 4000.0, 2000.0, 1500.0)
    with pytest.raises(InvalidFrame, match="covers 20[01] colour pixels"):
        register_depth(depth, 1e-4, DEPTH_K, big, Extrinsics())
    tilted = Intrinsics(36, 26, 31.0, 30.0, 17.9, 12.4, (0.0,) * 12 + (0.1, 0.0))
    with pytest.raises(InvalidFrame, match="tilted"):
        register_depth(depth, 1e-4, DEPTH_K, tilted, BESIDE)


def test_a_frame_with_raw_depth_becomes_a_cloud_on_the_colour_grid():
    depth = np.full((16, 24), 5000, np.uint16)
    colour = np.zeros((26, 36, 3), np.uint8)
    raw = Frame(colour, depth, 1e-4, intrinsics=COLOUR_K, depth_intrinsics=DEPTH_K, extrinsics=BESIDE)
    frame = registered(raw)
    assert frame.depth.shape == (26, 36) and frame.depth_intrinsics is None and registered(frame) is frame
    assert np.array_equal(frame_xyz(raw), frame_xyz(frame)) and frame_xyz(raw).shape == (26, 36, 3)
    with pytest.raises(InvalidFrame, match="extrinsics"):
        registered(Frame(colour, depth, 1e-4, intrinsics=COLOUR_K, depth_intrinsics=DEPTH_K))
