"""The kernels in the order in which the device pipeline launches them, executed by the block emulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_ad.runtime.kernels.launch import (
    FPS,
    Buckets,
    Launch,
    compact_launch,
    consecutive_buckets,
    knn_launch,
)
from tests.emulator.emulate import Emulated, emulate

Schedule = tuple[str, int]
FORWARD: Schedule = ("forward", 0)


def module(name: str, schedule: Schedule = FORWARD) -> Emulated:
    return emulate(name).use(*schedule)


def start(kernel: Any, launch: Launch) -> Any:
    return kernel[launch.grid, launch.block, launch.shared]


def count(n: int) -> np.ndarray:
    return np.array([n], np.int32)


class Ordered:
    """Points in buckets, as ``order.cu`` leaves them."""

    def __init__(
        self,
        points: np.ndarray,
        buckets: Buckets | None = None,
        rank: np.ndarray | None = None,
        size: int = 0,
        stride: int = 1,
        schedule: Schedule = FORWARD,
    ) -> None:
        self.points, self.schedule = np.ascontiguousarray(points), schedule
        self.buckets = b = buckets or consecutive_buckets(max(1, len(points)))
        self.slots = np.full((b.slots, 4), np.nan, np.float32)
        self.nearest = np.full(b.slots, np.nan, np.float32)
        self.boxes = np.full((b.count, 8), np.nan, np.float32)
        order = module("order", schedule)
        if rank is None:
            out = (self.slots, self.nearest, self.boxes)
            start(order.order_points, b.launch())(self.points, count(len(points)), b.count, b.room, *out)
        else:
            out = (self.slots, self.nearest, self.boxes)
            start(order.order_tiles, b.launch())(self.points, rank, size, stride, b.tile, b.across, *out)

    def fps(self, groups: int) -> tuple[np.ndarray, np.ndarray]:
        """(groups,) int32 and (groups, 3) float32."""
        chosen, centers = np.full(groups, -9, np.int32), np.full((groups, 3), np.nan, np.float32)
        kernel = start(module("fps", self.schedule).farthest_points, FPS)
        buffers = (self.slots, self.nearest.copy(), self.boxes, self.buckets.count, self.buckets.room)
        kernel(*buffers, self.points, count(len(self.points)), groups, chosen, centers)
        return chosen, centers

    def knn(self, centers: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(groups, k) int32 and (groups, k, 3) float32."""
        groups = len(centers)
        index, grouped = np.full((groups, k), -9, np.int32), np.full((groups, k, 3), np.nan, np.float32)
        kernel = start(module("knn", self.schedule).nearest_points, knn_launch(groups, k))
        buffers = (self.slots, self.boxes, self.buckets.count, self.buckets.room)
        kernel(*buffers, self.points, np.ascontiguousarray(centers), groups, k, index, grouped)
        return index, grouped

    def three_nearest(self, centers: np.ndarray, eps: float = 1e-8) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) int32 and float32 by ``three_nearest_tiles``."""
        n = len(self.points)
        index, weight = np.full((n, 3), -9, np.int32), np.full((n, 3), np.nan, np.float32)
        kernel = start(module("three_nn", self.schedule).three_nearest_tiles, self.buckets.launch())
        buffers = (self.slots, self.boxes, self.buckets.count, self.buckets.room)
        kernel(*buffers, np.ascontiguousarray(centers), len(centers), eps, index, weight)
        return index, weight


class Compacted:
    """Valid pixels as ``compact.cu`` leaves them."""

    def __init__(self, valid: np.ndarray, xyz: np.ndarray, stride: int = 1, schedule: Schedule = FORWARD) -> None:
        size = len(valid)
        m, launch = module("compact", schedule), compact_launch(size)
        flat = np.ascontiguousarray(valid).view(np.uint8)
        counts = np.full(launch.grid[0], -9, np.int32)
        start(m.compact_count, launch)(flat, size, stride, counts)
        self.points = np.full((size * size, 3), np.nan, np.float32)
        self.pixels = np.full(size * size, -9, np.int32)
        self.rank = np.full((size, size), -9, np.int32)
        self.count = np.full(1, -9, np.int32)
        buffers = (self.points, self.pixels, self.rank, self.count)
        start(m.compact_scatter, launch)(flat, np.ascontiguousarray(xyz), size, stride, counts, *buffers)
