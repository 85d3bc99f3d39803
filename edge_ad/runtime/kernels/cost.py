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
from edge_ad.runtime.kernels.launch import Buckets, Smoothing, bicubic_table, preprocess_launch
from edge_ad.runtime.kernels.reference import I32, order_points
from edge_ad.runtime.pointops import farthest_point_sample, k_nearest, squared_distance

DISTANCE, BOX = 8, 20
"""Operations of a squared distance, and of the test of a box (9 subtractions and maxima more, and a comparison)."""


@dataclass(frozen=True)
class Device:
    """One GPU: streaming multiprocessors, clock in GHz, memory in GB/s. 128 float32 lanes a multiprocessor; 64 bytes a
    clock between one multiprocessor and the second-level cache."""

    name: str
    multiprocessors: int
    clock_ghz: float
    memory_gbs: float


DEVICES = (
    Device("AGX Orin 64", 16, 1.3, 204.8),
    Device("Orin Nano Super", 8, 1.02, 102.0),
    Device("H100 SXM", 132, 1.83, 3350.0),
)


@dataclass(frozen=True)
class Cost:
    """What one launch must move and compute. ``blocks``: 1 for a kernel that one multiprocessor runs alone, else 0."""

    kernel: str
    bytes: int
    operations: int
    float64: int = 0
    blocks: int = 0

    def floor_ms(self, device: Device) -> float:
        """The least time on a device: its memory or its lanes, whichever is slower. Latencies come on top."""
        many = self.blocks or device.multiprocessors
        lanes = 128e9 * device.clock_ghz * many
        # Orin and other small GPUs have 2 float64 lanes a multiprocessor, H100 has 64.
        wide = (64e9 if device.memory_gbs > 1000 else 2e9) * device.clock_ghz * many
        if self.blocks:
            memory = self.bytes / (64e9 * device.clock_ghz * self.blocks)
        else:
            memory = self.bytes / (device.memory_gbs * 1e9)
        return 1e3 * max(memory, self.operations / lanes, self.float64 / wide)


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
    """Sizes of one frame: camera (height, width), window side, sample size, valid points n, groups of k."""

    height: int
    width: int
    side: int
    size: int
    n: int
    groups: int
    k: int


def costs(
    p: Problem, buckets: Buckets, sampling: Work, grouping: Work, interpolation: Work, filters: Smoothing | None
) -> list[Cost]:
    """Every launch of one frame with one part, in order. Of the two kernels for the three nearest one is launched."""
    camera, pixels = p.height * p.width, p.size * p.size
    window = min(p.side, p.height) * min(p.side, p.width)
    bounds, taps = bicubic_table(p.side, p.size)
    rows = preprocess_launch(p.side, p.size).block // 32
    tops = np.arange(0, p.size, rows)
    bottoms = np.minimum(tops + rows, p.size) - 1
    strips = int((bounds[bottoms].sum(axis=1) - bounds[tops, 0]).sum())
    weights = int(bounds[:, 1].sum())
    out = [
        Cost("register_depth_u16", camera * (2 + 24 + 4), camera * 42),
        Cost("depth_u16_to_cloud", camera * (2 + 2 + 12 + 1), camera * 14),
        Cost("preprocess", window * 3 + pixels * (13 + 26), 6 * (strips * weights + p.size * weights) + 9 * pixels),
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
        Cost("three_nearest", p.n * 36 + p.groups * 12, p.n * p.groups * (DISTANCE + 1)),
        Cost(
            "three_nearest_tiles",
            buckets.slots * 16 + buckets.count * 32 + p.n * 24 + p.groups * 12,
            interpolation.boxes * BOX + interpolation.slots * (DISTANCE + 1),
        ),
    ]
    if filters is not None:
        across = 32 + 2 * filters.rim
        tiles, good, sums = (-(-p.size // 32)) ** 2, across, 0
        for r in filters.radius.tolist():
            wide = good - 2 * r
            sums += (wide * good + wide * wide) * (2 * r + 1)
            good = wide
        out.append(Cost("smooth", pixels * 8, 2 * tiles * sums))
    out += [
        Cost("map_statistics", pixels * 4, pixels * 9, blocks=1),
        Cost("threshold_map", pixels * 6, pixels * 2),
        Cost("label_start", pixels * 29, pixels),
        Cost("label_join", pixels * 8, pixels * 5),
        Cost("label_measure", pixels * 12, pixels * 8),
        Cost("label_collect", pixels * 6, pixels * 2),
        Cost("to_camera", camera * 10 + pixels * 5, window * 24),
    ]
    return out
