"""After the distances: smoothing, score, mask, and the way back to the camera's grid."""

from __future__ import annotations

import cv2
import numpy as np

from edge_ad.frame import F32, Bool, Region, SampleTransform
from edge_ad.presets import Fusion

RIM_WEIGHT = 0.02
"""Weight of a pixel within ``fusion.rim`` of an invalid one."""


def smooth(anomaly: F32, fusion: Fusion, valid: Bool) -> F32:
    """(S, S) float32, 0 where ``valid`` (S, S) is False -> (S, S) float32 by ``fusion.smoothing``.

    ``box-cascade``: five 5 x 5 box filters, then three of 7 x 7, as CFM publishes. ``gaussian``: cut at 4 sigma. Zeros
    lie beyond the border. ``smooth_over = "valid"`` makes it a weighted mean of the valid pixels, 0 elsewhere; those
    within ``fusion.rim`` of an invalid one weigh RIM_WEIGHT. ``fusion.spread`` > 0: the mean is taken at invalid pixels
    as well, within a square window of 2 ``spread`` + 1 around a valid one, but is no larger there than the largest at a
    valid pixel: material that is missing, or whose depth is lost, lies there, and the score stays that of the valid.
    """
    if fusion.smoothing == "none":
        return anomaly
    if fusion.smooth_over == "image":
        return _filter(anomaly, fusion)
    weight = rim_weight(valid, fusion.rim)
    total = np.maximum(_filter(weight, fusion), np.float32(1e-6))
    mean = _filter(anomaly * weight, fusion) / total
    inside = np.where(valid, mean, np.float32(0))
    if fusion.spread == 0:
        return inside
    window = np.ones((2 * fusion.spread + 1, 2 * fusion.spread + 1), np.uint8)
    near = cv2.dilate(valid.astype(np.uint8), window) > 0
    return np.where(near, np.minimum(mean, inside.max()), np.float32(0))


def rim_weight(valid: Bool, rim: int) -> F32:
    """(S, S) bool -> (S, S) float32 weights of the smoothing: 0 where invalid, RIM_WEIGHT where a pixel of the square
    window of 2 ``rim`` + 1 is invalid, else 1. What lies beyond the border counts as valid: a part may go on there.

    At a part's edge depth mixes front and background, groups are cut off and colour bleeds: good parts are loudest
    there. A part that is all rim (a wire) keeps its map, since the weights cancel in the mean.
    """
    weight = valid.astype(np.float32)
    if rim > 0:
        window = np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)
        core = cv2.erode(valid.astype(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=1)
        weight[valid & (core == 0)] = RIM_WEIGHT
    return weight


def _filter(anomaly: F32, fusion: Fusion) -> F32:
    if fusion.smoothing == "gaussian":
        radius = int(4.0 * fusion.sigma + 0.5)
        kernel = cv2.getGaussianKernel(2 * radius + 1, fusion.sigma, cv2.CV_32F)
        return np.asarray(cv2.sepFilter2D(anomaly, -1, kernel, kernel, borderType=cv2.BORDER_CONSTANT), np.float32)
    for width, times in ((5, 5), (7, 3)):
        for _ in range(times):
            anomaly = cv2.blur(anomaly, (width, width), borderType=cv2.BORDER_CONSTANT)  # type: ignore[assignment]
    return anomaly


def image_score(anomaly: F32, fusion: Fusion) -> float:
    """Score of a part from its smoothed map: its maximum, or CFM's maximum / sqrt(mean of the non-zero map)."""
    peak = float(anomaly.max())
    if fusion.score == "max" or peak == 0:
        return peak
    return peak / float(np.sqrt(anomaly[anomaly != 0].mean(dtype=np.float64)))


def map_to_camera(anomaly: F32, t: SampleTransform) -> F32:
    """(S, S) -> (H, W) float32: bilinear between pixel centres, 0 outside the window."""
    window = cv2.resize(anomaly, (t.side, t.side), interpolation=cv2.INTER_LINEAR)
    out = np.zeros((t.frame_height, t.frame_width), dtype=np.float32)
    rows, cols, y0, x0 = _overlap(t)
    out[rows, cols] = window[y0 : y0 + rows.stop - rows.start, x0 : x0 + cols.stop - cols.start]
    return out


def mask_to_camera(mask: Bool, t: SampleTransform) -> Bool:
    """(S, S) bool -> (H, W) bool: the sample pixel that a camera pixel lies in; no True pixel is lost."""
    i = np.arange(t.side, dtype=np.int64)
    source = np.minimum(((2 * i + 1) * t.size) // (2 * t.side), t.size - 1)
    window = mask[source[:, None], source[None, :]]
    out = np.zeros((t.frame_height, t.frame_width), dtype=np.bool_)
    rows, cols, y0, x0 = _overlap(t)
    out[rows, cols] = window[y0 : y0 + rows.stop - rows.start, x0 : x0 + cols.stop - cols.start]
    if t.side < t.size:  # several sample pixels share a camera pixel: any of them marks it
        r, c = np.nonzero(mask)
        r, c = t.source_rows()[r], t.source_cols()[c]
        inside = (r >= 0) & (r < t.frame_height) & (c >= 0) & (c < t.frame_width)
        out[r[inside], c[inside]] = True
    return out


def _overlap(t: SampleTransform) -> tuple[slice, slice, int, int]:
    rows = slice(max(0, t.y0), min(t.frame_height, t.y0 + t.side))
    cols = slice(max(0, t.x0), min(t.frame_width, t.x0 + t.side))
    return rows, cols, rows.start - t.y0, cols.start - t.x0


def drop_small(mask: Bool, min_px: int) -> Bool:
    """Remove 8-connected regions of fewer than ``min_px`` pixels."""
    if min_px <= 1 or not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    return np.asarray(keep[labels], dtype=np.bool_)


def find_regions(mask: Bool, anomaly: F32, xyz: F32, kind: str = "anomaly") -> tuple[Region, ...]:
    """8-connected regions of ``mask``, strongest peak first.

    Parameters
    ----------
    mask : (H, W) bool. anomaly : (H, W) float32. xyz : (H, W, 3) float32 metres, 0 where unknown.

    Notes
    -----
    Areas are projected: what the camera sees of the region, perpendicular to its axis, at each pixel's own depth; a
    pixel without depth counts as the mean of the others. A region without any depth has area 0 mm^2 and no position.
    """
    if not mask.any():
        return ()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for i in range(1, count):
        x0, y0, w, h = (int(v) for v in stats[i, :4])
        box = (slice(y0, y0 + h), slice(x0, x0 + w))
        here = labels[box] == i
        # One pixel more on each side, so that differences exist at the region's edge.
        wide = xyz[max(0, y0 - 1) : y0 + h + 1, max(0, x0 - 1) : x0 + w + 1]
        area = _pixel_area(wide)[y0 - max(0, y0 - 1) :, x0 - max(0, x0 - 1) :][:h, :w]
        points = xyz[box][here & (xyz[box][..., 2] > 0)]
        known = here & (area > 0)
        pixels = int(stats[i, cv2.CC_STAT_AREA])
        mm2 = float(area[known].mean(dtype=np.float64)) * 1e6 * pixels if known.any() else 0.0
        position = extent = None
        if len(points):
            centre, size = points.mean(axis=0, dtype=np.float64) * 1e3, np.ptp(points, axis=0) * 1e3
            position = (float(centre[0]), float(centre[1]), float(centre[2]))
            extent = (float(size[0]), float(size[1]), float(size[2]))
        peak = float(anomaly[box][here].max())
        found.append(Region((x0, y0, x0 + w, y0 + h), pixels, mm2, peak, position, extent, kind))
    return tuple(sorted(found, key=lambda r: (-r.peak, -r.area_px)))


def _pixel_area(xyz: F32) -> F32:
    """(H, W, 3) -> (H, W) float32 m^2 that a pixel covers at its depth, perpendicular to the axis; 0 where unknown.

    The step between the rays x / z of the two neighbours, times the pixel's own depth: a jump of depth between them
    does not change it.
    """
    h, w = xyz.shape[:2]
    if h < 3 or w < 3:
        return np.zeros((h, w), dtype=np.float32)
    z = xyz[..., 2]
    known = z > 0
    rays = xyz[..., :2] / np.where(known, z, 1)[..., None]
    dx, dy = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    dx[:, 1:-1] = np.abs(rays[:, 2:, 0] - rays[:, :-2, 0]) / 2 * (known[:, 2:] & known[:, :-2])
    dy[1:-1] = np.abs(rays[2:, :, 1] - rays[:-2, :, 1]) / 2 * (known[2:] & known[:-2])
    return np.asarray(dx * dy * z * z * known, dtype=np.float32)
