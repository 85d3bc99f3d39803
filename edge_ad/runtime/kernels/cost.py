"""Bytes and operations of every point and image kernel, counted from the code, and the floors they imply on a device.

Bytes are those that must cross the device's memory once; what is read again comes from a cache. An operation is one
addition, multiplication, division, comparison or minimum on a datum; addresses and loops are not counted. Nothing is
fused, so a device does half of its advertised FLOP/s. What sampling, grouping and interpolation touch depends on the
cloud: ``sampling_work``, ``grouping_work`` and ``interpolation_work`` count it by the kernels' own rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.frame import F32, I64
from edge_ad.runtime.kernels.floor import Cost
from edge_ad.runtime.kernels.launch import Buckets, Smoothing, bicubic_table, preprocess_launch
from edge_ad.runtime.kernels.reference import I32, order_points
from edge_ad.runtime.pointops import farthest_point_sample, k_nearest, squared_distance

DISTANCE, BOX = 8, 20
"""Operations of a squared distance, and of the test of a box (9 subtractions and maxima more, and a comparison)."""


@dataclass(frozen=True)
class Work:
    """Counted by replaying a kernel on a cloud: boxes tested, slots read."""

    boxes: int
    slots: int


def _boxes(index: I32, boxes: F32, centers: F32) -> F32:
    """(G, buckets) float32 lower bounds, as ``box_distance2``."""
    d = np.maximum(np.maximum(boxes[None, :, :3] - centers[:, None], centers[:, None] - boxes[None, :, 3:]), 0)
    filled = np.asarray((index >= 0).any(axis=1))
    return np.where(filled[None, :], (d[..., 0] ** 2 + d[..., 1] ** 2) + d[..., 2] ** 2, np.inf)


def sampling_work(points: F32, buckets: Buckets, groups: int, rank: I32 | None = None, size: int = 0) -> Work:
    """Boxes and slots that ``farthest_points`` touches for ``groups`` centres of ``points`` (N, 3)."""
    index, boxes = order_points(points, rank, buckets, size)
    nearest = np.where(index >= 0, np.float32(np.inf), np.float32(-1))
    chosen = farthest_point_sample(points, groups)
    slots = 0
    for j, c in enumerate(chosen[:-1]):
        near = _boxes(index, boxes, points[c][None])[0]
        touched = np.flatnonzero((near < nearest.max(axis=1)) | ((j == 0) & (index >= 0).any(axis=1)))
        slots += len(touched) * buckets.room
        part = index[touched]
        d = squared_distance(points[np.maximum(part, 0)], points[c])
        nearest[touched] = np.where(part >= 0, np.minimum(nearest[touched], d), -1)
    return Work(buckets.count * (groups - 1), slots)


def grouping_work(
    points: F32, centers: F32, k: int, buckets: Buckets, rank: I32 | None = None, size: int = 0, near: I64 | None = None
) -> Work:
    """Boxes and slots that ``nearest_points`` reads at least: the buckets within each centre's final limit.

    The kernel's limit shrinks on the way, so it reads somewhat more. ``near`` : (G, k) neighbours, if known.
    """
    index, boxes = order_points(points, rank, buckets, size)
    near = k_nearest(points, centers, k) if near is None else near
    limit = squared_distance(points[near[:, -1]], centers)
    bounds = _boxes(index, boxes, centers)
    within = int((bounds <= limit[:, None]).sum())
    order = np.sort(bounds, axis=1)
    filled = (index >= 0).sum(axis=1)[np.argsort(bounds, axis=1, kind="stable")]
    rounds = (np.cumsum(filled, axis=1) < k).sum(axis=1) + 1
    return Work(int(((rounds + 1) * order.shape[1]).sum()), within * buckets.room)


def interpolation_work(points: F32, centers: F32, buckets: Buckets, rank: I32 | None = None, size: int = 0) -> Work:
    """Boxes that ``three_nearest_tiles`` tests and pairs of a slot and a centre that it compares."""
    index, boxes = order_points(points, rank, buckets, size)
    filled = np.asarray((index >= 0).any(axis=1))
    bounds = _boxes(index, boxes, centers)[:, filled]
    far = np.maximum(
        np.abs(boxes[None, filled, :3] - centers[:, None]), np.abs(boxes[None, filled, 3:] - centers[:, None])
    )
    reach = np.sort((far[..., 0] ** 2 + far[..., 1] ** 2) + far[..., 2] ** 2, axis=0)[2]
    return Work(2 * bounds.size, int((bounds <= reach[None]).sum()) * buckets.room)


@dataclass(frozen=True)
class Problem:
    """Sizes of one frame: camera (height, width), window side, sample size, valid points n, groups of k.

    pool : tokens a mean is taken of, of dim numbers. rim, spread : of the smoothing. stride : of scoring. ring : points
    that a plane is fitted to, 0: its plane is known. cloud : the camera gives points. registered : depth of its own.
    """

    height: int
    width: int
    side: int
    size: int
    n: int
    groups: int
    k: int
    pool: int = 1
    dim: int = 384
    rim: int = 0
    spread: int = 0
    stride: int = 1
    ring: int = 0
    cloud: bool = False
    registered: bool = True


def costs(
    p: Problem, buckets: Buckets, sampling: Work, grouping: Work, interpolation: Work, filters: Smoothing | None
) -> list[Cost]:
    """Every kernel of one frame with one part, in the order of their first launches; scoring is ``score_cost``'s."""
    return [*_front(p), *_points(p, buckets, sampling, grouping, interpolation), *_map(p, filters), *_frame(p)]


def _front(p: Problem) -> list[Cost]:
    camera, pixels = p.height * p.width, p.size * p.size
    window = min(p.side, p.height) * min(p.side, p.width)
    bounds, taps = bicubic_table(p.side, p.size)
    rows = preprocess_launch(p.side, p.size).block // 32
    tops = np.arange(0, p.size, rows)
    bottoms = np.minimum(tops + rows, p.size) - 1
    strips = int((bounds[bottoms].sum(axis=1) - bounds[tops, 0]).sum())
    weights = int(bounds[:, 1].sum())
    checks = int(p.cloud) + int(p.ring > 0)
    out = []
    if p.registered and not p.cloud:
        out.append(Cost("register_depth", camera * (2 + 24 + 4), camera * 42))
    if not p.cloud:
        out.append(Cost("depth_to_cloud", camera * (2 + 2 + 12 + 1), camera * 14))
    if checks:
        out.append(Cost("check_cloud", checks * camera * (12 + 2 + 1), checks * camera * 12))
    if p.ring:
        out.append(Cost("gather_points", p.ring * (4 + 24), p.ring))
    return [
        *out,
        Cost("preprocess", window * 3 + pixels * (13 + 26), 6 * (strips * weights + p.size * weights) + 9 * pixels),
        Cost("part_counts", pixels * 2, pixels * 6),
    ]


def _points(p: Problem, buckets: Buckets, sampling: Work, grouping: Work, interpolation: Work) -> list[Cost]:
    pixels = p.size * p.size
    out = [
        Cost("compact_count", pixels, pixels),
        Cost("compact_scatter", pixels * 5 + p.n * (12 + 16), pixels * 2),
        Cost("cloud_frame", p.n * 24, p.n * 30, 100, blocks=1),
        Cost("cloud_apply", p.n * 24, p.n * 6),
        Cost("order_tiles", pixels * 4 + p.n * 12 + buckets.slots * 20 + buckets.count * 32, buckets.slots * 6),
        Cost(
            "farthest_points",
            buckets.count * 32 + sampling.slots * 20,
            sampling.boxes * BOX + sampling.slots * (DISTANCE + 4),
            blocks=1,
        ),
        Cost(
            "nearest_points",
            buckets.slots * 16 + buckets.count * 32 + p.groups * p.k * 16,
            grouping.boxes * BOX + grouping.slots * (DISTANCE + 2),
        ),
        Cost(
            "three_nearest_tiles",
            buckets.slots * 16 + buckets.count * 32 + p.n * 24 + p.groups * 12,
            interpolation.boxes * BOX + interpolation.slots * (DISTANCE + 1),
        ),
        Cost("order_points", p.groups * (12 + 20 + 1), p.groups * 6),
        Cost("score_pool", p.groups * p.dim * 8, p.groups * p.dim * (p.pool + 1)),
    ]
    if p.stride > 1:
        some = -(-p.n // p.stride**2)
        out += [
            Cost("stride_mark", pixels * 2, pixels * 10),
            Cost("stride_gather", some * (4 + 4 + 48), some),
            Cost("stride_spread", 2 * (some * 8 + p.n * 12), 2 * p.n * 20),  # Psi_rgb and Psi_3d
        ]
    return out


def _map(p: Problem, filters: Smoothing | None) -> list[Cost]:
    pixels = p.size * p.size
    out = []
    if p.rim > 0:
        out.append(Cost("rim_weight", pixels * 13, pixels * (2 * p.rim + 1) ** 2))
    if filters is not None:
        twice = 1 + (p.rim > 0)  # the weights are smoothed as the map is
        across = 32 + 2 * filters.rim
        tiles, good, sums = (-(-p.size // 32)) ** 2, across, 0
        for r in filters.radius.tolist():
            wide = good - 2 * r
            sums += (wide * good + wide * wide) * (2 * r + 1)
            good = wide
        if filters.fits:
            out.append(Cost("smooth", twice * pixels * 8, twice * 2 * tiles * sums))
        else:
            taps = int((2 * filters.radius + 1).sum())
            launches = 2 * len(filters.radius) * twice
            out.append(Cost("score_filter", launches * pixels * 8, 2 * twice * 2 * taps * pixels, fused=True))
    if p.spread > 0:
        out.append(Cost("top_of_valid", pixels * 5, pixels * 2))
        out.append(Cost("spread_map", pixels * 9, pixels * (2 * p.spread + 1) ** 2))
    return out


def _frame(p: Problem) -> list[Cost]:
    camera, pixels = p.height * p.width, p.size * p.size
    window = min(p.side, p.height) * min(p.side, p.width)
    # The part's mask; the frame's mask and its lost depth. What is written of the areas alone is not counted.
    every = pixels + 2 * camera
    return [
        Cost("map_statistics", pixels * 4, pixels * 9, blocks=1),
        Cost("part_verdict", 100, 10, 3, blocks=1),
        Cost("threshold_map", pixels * 6, pixels * 2),
        Cost("label_start", every * 5, every),
        Cost("label_join", every * 8, every * 5),
        Cost("label_measure", every * 12, every * 9),
        Cost("label_collect", every * 6, every * 2),
        Cost("keep_above", pixels * 6, pixels),
        Cost("to_camera", camera * 12 + pixels * 6, window * 26),
        Cost("region_measures", window * 16, window * 30, window * 5),  # at most: the whole window is one area
    ]
