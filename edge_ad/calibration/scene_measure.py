"""The measurements of scene calibration, one function each; on the camera's grid, lengths in metres unless named."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, U8, Bool, Frame
from edge_ad.runtime.geometry import Plane, fit_plane, frame_xyz
from edge_ad.runtime.tiles import Box

FIT_M = 0.005
"""A point nearer to the plane than this takes part in its fit, as in the preset's ``plane_distance_m``."""


def bounds(mask: Bool) -> Box:
    """(y0, x0, y1, x1), half open, of the True pixels. Raises EdgeAdError when there is none."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise EdgeAdError("an empty region of interest", "one with pixels in it")
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def cloud_of(frame: Frame) -> F32:
    """The frame's cloud, (H, W, 3). Raises EdgeAdError that names the frame."""
    try:
        return frame_xyz(frame)
    except InvalidFrame as e:
        raise EdgeAdError(f"{frame.name or 'frame'}: {e.found}", e.expected, e.remedy) from None


def median_cloud(clouds: Sequence[F32]) -> tuple[F32, Bool]:
    """The median of each pixel over the frames where it has depth, and which pixels had it in at least half of them."""
    z = np.stack([c[..., 2] for c in clouds])
    z[z <= 0] = np.nan
    known = np.asarray(np.isfinite(z).sum(axis=0) * 2 >= len(clouds), dtype=np.bool_)
    z[:, ~known] = 1.0  # no column of NaN alone
    middle = np.nanmedian(z, axis=0).astype(np.float32)
    # x and y are those of a frame that has the pixel, scaled onto the median depth: the ray is the same.
    xyz = np.zeros_like(clouds[0])
    for cloud in clouds:
        free = known & (xyz[..., 2] == 0) & (cloud[..., 2] > 0)
        xyz[free] = cloud[free] * (middle[free] / cloud[..., 2][free])[:, None]
    return xyz, known


def find_plane(xyz: F32, usable: Bool) -> Plane:
    """The plane that holds most of the usable pixels' points. Raises EdgeAdError where none holds a tenth of them."""
    points = xyz[usable]
    if len(points) < 100:
        raise EdgeAdError(f"{len(points)} pixels with depth in half of the frames", "a supporting plane in view")
    step = max(1, len(points) // 40000)
    try:
        plane = fit_plane(points[::step], FIT_M, 400)
    except InvalidFrame as e:
        raise EdgeAdError(e.found, e.expected, "show the camera its supporting plane") from None
    if plane.inliers < 0.1:
        raise EdgeAdError(
            f"no plane: the best one holds {plane.inliers:.0%} of the depth", "a supporting plane in view", "give --roi"
        )
    return plane


def depth_noise(clouds: Sequence[F32], on_plane: Bool) -> float:
    """Median over the plane's pixels of the standard deviation of depth over time, robust against passing parts."""
    z = np.stack([c[..., 2][on_plane] for c in clouds]).astype(np.float64)
    z[z <= 0] = np.nan
    steps = np.abs(np.diff(z, axis=0))
    some = np.isfinite(steps).any(axis=0)
    if not some.any():
        raise EdgeAdError("no pixel of the plane has depth in two frames in a row", "a steady picture")
    # Of differences of neighbouring frames, so that a slow drift is no noise: sigma = median |d| / (0.6745 sqrt 2).
    return float(np.median(np.nanmedian(steps[:, some], axis=0)) / (0.6745 * np.sqrt(2)))


def find_region(on_plane: Bool, known: Bool, heights: F32) -> Bool:
    """The largest connected piece of the plane with what stands on it, without its outermost pixels."""
    surface = (on_plane | (known & (heights > 0) & (heights < 0.3))).astype(np.uint8)
    closed = cv2.morphologyEx(surface, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    count, labels, _, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        raise EdgeAdError("no supporting plane in view", "one", "give --roi")
    votes = [int((on_plane & (labels == i)).sum()) for i in range(1, count)]
    piece = (labels == 1 + int(np.argmax(votes))).astype(np.uint8)
    contours, _ = cv2.findContours(piece, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(piece, contours, -1, 1, thickness=cv2.FILLED)
    margin = max(1, round(0.01 * min(piece.shape)))
    kernel = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    inner = cv2.erode(piece, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray(inner > 0 if inner.any() else piece > 0, dtype=np.bool_)


def pixel_size_mm(plane: Plane, where: Bool, xyz: F32) -> float:
    """Distance of neighbouring pixels on the plane, the larger of along rows and down columns, median, in
    millimetres."""
    pairs = where[:, 1:] & where[:, :-1], where[1:] & where[:-1]
    # The points are first dropped onto the plane: the noise of depth would lengthen every step.
    normal = np.asarray(plane.normal, np.float64)
    flat = xyz.astype(np.float64) * (-plane.offset / np.minimum(xyz @ normal, -1e-9))[..., None]
    steps = [np.linalg.norm(np.diff(flat, axis=axis)[pair], axis=1) for axis, pair in ((1, pairs[0]), (0, pairs[1]))]
    if not all(len(s) for s in steps):
        raise EdgeAdError("no two neighbouring pixels on the plane", "a denser depth picture")
    return 1e3 * max(float(np.median(s)) for s in steps)


def belt_motion(frames: Sequence[Frame], roi: Bool) -> tuple[float, float]:
    """Motion in pixels a frame (x, y) by phase correlation of neighbouring frames; zeros where they do not agree."""
    y0, x0, y1, x1 = bounds(roi)
    greys = [cv2.cvtColor(f.colour[y0:y1, x0:x1], cv2.COLOR_RGB2GRAY).astype(np.float32) for f in frames]
    background = np.median(np.stack(greys), axis=0)
    window = cv2.createHanningWindow((x1 - x0, y1 - y0), cv2.CV_32F) if min(x1 - x0, y1 - y0) > 1 else None
    steps = []
    for before, after in zip(greys, greys[1:]):
        (dx, dy), response = cv2.phaseCorrelate(before - background, after - background, window)
        if response > 0.1 and np.hypot(dx, dy) > 1.0:
            steps.append((dx, dy))
    if len(steps) < max(3, (len(frames) - 1) // 4):
        return 0.0, 0.0
    moves = np.asarray(steps)
    lengths = np.hypot(moves[:, 0], moves[:, 1])
    agreement = float(np.hypot(*(moves / lengths[:, None]).mean(axis=0)))
    if agreement < 0.8:
        return 0.0, 0.0
    middle = np.median(moves, axis=0)
    return float(middle[0]), float(middle[1])


def tallest_m(plane: Plane, clouds: Sequence[F32], roi: Bool, tolerance: float) -> float:
    """Height of the tallest thing in the region over all frames, metres; 0.05 where there was none."""
    tops = []
    for cloud in clouds:
        heights = plane.height(cloud)[roi & (cloud[..., 2] > 0)]
        above = heights[heights > max(tolerance, FIT_M)]
        if len(above) > 20:
            tops.append(float(np.percentile(above, 99)))
    return max(tops) if tops else 0.05


def reach_m(xyz: F32, on_plane: Bool) -> float:
    """Half of the plane's visible extent in metres: the lever on which a tilt acts."""
    points = xyz[on_plane]
    return max(0.01, float(np.linalg.norm(points.max(axis=0) - points.min(axis=0))) / 2)


def median_colour(frames: Sequence[Frame]) -> U8:
    """The picture without what passes through it, (H, W, 3), from about nine frames."""
    some = frames[:: max(1, len(frames) // 9)]
    return np.median(np.stack([f.colour for f in some]), axis=0).astype(np.uint8)
