"""Augmentation keeps colour, depth and camera together, and is repeatable."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.data.augment import MAX_SHIFT, augment, rot90
from edge_ad.frame import Frame, Intrinsics
from edge_ad.runtime.geometry import frame_xyz


def make_frame(*, xyz: bool, dtype: type = np.uint16) -> Frame:
    rng = np.random.default_rng(0)
    h, w = 48, 64
    colour = rng.integers(60, 200, (h, w, 3)).astype(np.uint8)
    depth = (3000 + 4 * np.arange(w)[None] + rng.normal(0, 2, (h, w))).astype(np.float32)
    depth[5:9, 5:9] = 0
    scale = 1e-4 if dtype is np.uint16 else 1e-3
    k = Intrinsics(w, h, 60.0, 62.0, 30.0, 25.0)
    frame = Frame(colour=colour, depth=depth.astype(dtype), depth_scale_m=scale, intrinsics=k)
    return Frame(colour=colour, xyz=frame_xyz(frame)) if xyz else frame


@pytest.mark.parametrize("xyz", [False, True])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(xyz: bool) -> None:
    frame = make_frame(xyz=xyz)
    a, b, c = augment(frame, 3), augment(frame, 3), augment(frame, 4)
    np.testing.assert_array_equal(a.colour, b.colour)
    np.testing.assert_array_equal(frame_xyz(a), frame_xyz(b))
    assert (a.colour != c.colour).any()


@pytest.mark.parametrize("xyz", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_a_variation_is_small(xyz: bool, seed: int) -> None:
    frame = make_frame(xyz=xyz)
    varied = augment(frame, seed)
    assert varied.colour.dtype == np.uint8
    assert varied.shape == frame.shape
    assert abs(float(varied.colour.mean()) - float(frame.colour.mean())) < 60
    before, after = frame_xyz(frame), frame_xyz(varied)
    known = (after[..., 2] > 0) & (before[..., 2] > 0)
    # The shift moves a sloping surface by at most MAX_SHIFT columns of 0.4 mm; noise adds a little.
    assert known.mean() > 0.95
    assert np.abs(after[..., 2] - before[..., 2])[known].max() < MAX_SHIFT * 0.4e-3 + 3e-3


def test_colour_and_depth_move_together() -> None:
    frame = make_frame(xyz=False)
    marked = frame.colour.copy()
    marked[...] = 40
    marked[20:28, 30:38] = 220
    depth = frame.depth.copy()  # type: ignore[union-attr]
    depth[...] = 5000
    depth[20:28, 30:38] = 3000
    for seed in range(12):
        varied = augment(Frame(colour=marked, depth=depth, intrinsics=frame.intrinsics), seed)
        bright = varied.colour[..., 1] > 130
        assert varied.depth is not None
        near = np.asarray((varied.depth > 0) & (varied.depth < 4000))
        # Blur softens the border and speckle makes holes; both stay within a pixel of each other.
        assert (bright ^ near).sum() <= 40
        assert near.sum() >= 50
        a, b = np.argwhere(bright).mean(0), np.argwhere(near).mean(0)
        assert np.abs(a - b).max() < 0.6


def test_missing_depth_stays_missing() -> None:
    frame = make_frame(xyz=False)
    varied = augment(frame, 5)
    assert (varied.depth == 0).sum() >= 10  # type: ignore[union-attr]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_turns_the_cloud_about_the_optical_axis(turns: int) -> None:
    frame = make_frame(xyz=False)
    as_cloud = Frame(colour=frame.colour, xyz=frame_xyz(frame))
    turned, turned_cloud = rot90(frame, turns), rot90(as_cloud, turns)
    np.testing.assert_array_equal(turned.colour, turned_cloud.colour)
    # Through intrinsics or through the cloud: the same points.
    np.testing.assert_allclose(frame_xyz(turned), frame_xyz(turned_cloud), atol=1e-6)
    before = np.sort(np.linalg.norm(frame_xyz(frame), axis=-1).ravel())
    after = np.sort(np.linalg.norm(frame_xyz(turned), axis=-1).ravel())
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_four_turns_change_nothing() -> None:
    frame = make_frame(xyz=False)
    back = rot90(rot90(rot90(rot90(frame, 1), 1), 1), 1)
    np.testing.assert_array_equal(back.colour, frame.colour)
    assert back.intrinsics == frame.intrinsics
