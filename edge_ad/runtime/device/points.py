"""The point branch: valid pixels to groups, centres and interpolation weights; the same as ``runtime.point_input``."""

from __future__ import annotations

import numpy as np

from edge_ad.presets import Points
from edge_ad.runtime.device.api import Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.kernels.launch import FPS, Buckets, compact_launch, knn_launch, per_thread

EPSILON = 1e-8
_HOW = {"none": 0, "unit-sphere": 1, "fixed": 2}


Ordered = tuple[Memory, Memory, Memory]
"""Points in buckets: slots, distances of sampling, boxes (order.cu)."""


def _ordered(arena: Arena, b: Buckets) -> Ordered:
    return arena.device((b.slots, 4)), arena.device((b.slots,)), arena.device((b.count, 2, 4))


class PointBranch:
    """Queues all point operations of a part. Its scratch memory serves one stream, on which parts follow each other."""

    def __init__(self, kernels: KernelSet, arena: Arena, sizes: Sizes, preset: Points, scale_m: float) -> None:
        self._kernels, self._s = kernels, sizes
        self._factor = 1.0 / scale_m  # used by normalize = "fixed" alone
        self._how = _HOW[preset.normalize]
        s, p = sizes, sizes.pixels
        self._blocks = compact_launch(s.size)
        self._counts = arena.device((self._blocks.grid[0],), np.int32)
        self.rank = arena.device((p,), np.int32)
        self._drawn_rank = arena.device((p,), np.int32) if s.stride > 1 else self.rank
        self._drawn_count = arena.device((1,), np.int32)
        self._drawn = arena.device((p, 3)) if s.stride > 1 else None
        self._every = _ordered(arena, s.every)
        self._some = _ordered(arena, s.drawn) if s.stride > 1 else self._every
        self._chosen = arena.device((s.groups,), np.int32)
        self.centers, self.groups = arena.device((s.groups, 3)), arena.device((s.groups, s.group_size, 3))
        self._all = arena.device((1,), np.int32)
        self._near = _ordered(arena, s.near)
        self._pool_index = arena.device((s.groups, s.pool), np.int32)
        self.tokens = arena.device((s.groups, s.dim_points))

    def prepare(self, arena: Arena, stream: Stream) -> None:
        """Constants; once."""
        self._all = arena.constant(np.array([self._s.groups], np.int32), stream)

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Compact, normalise, draw, sample, group, interpolate."""
        s, run = self._s, self._kernels.run
        points, frame = slot.points, slot.report.cloud_frame
        count: Memory | View = slot.report.count
        self.compact(slot.valid, 1, slot.cloud, points, slot.every.pixels, self.rank, count, stream)
        run("cloud_frame", FPS, stream, points, count, self._how, self._factor, frame)
        move = per_thread(min(3 * s.pixels, 1 << 16))
        run("cloud_apply", move, stream, points, count, frame)
        every = self._order(points, self.rank, s.every, 1, self._every, stream)
        drawn, ordered = points, every
        if self._drawn is not None:
            drawn, count = self._drawn, self._drawn_count
            self.compact(slot.valid, s.stride, slot.cloud, drawn, None, self._drawn_rank, count, stream)
            run("cloud_apply", move, stream, drawn, count, frame)
            ordered = self._order(drawn, self._drawn_rank, s.drawn, s.stride, self._some, stream)
        slots, nearest, boxes = ordered
        run("farthest_points", FPS, stream, slots, nearest, boxes, s.drawn.count, s.drawn.room, drawn, count, s.groups,
            self._chosen, self.centers)  # fmt: skip
        run("nearest_points", knn_launch(s.groups, s.group_size), stream, slots, boxes, s.drawn.count, s.drawn.room,
            drawn, self.centers, s.groups, s.group_size, None, self.groups)  # fmt: skip
        run("three_nearest_tiles", s.every.launch(), stream, every[0], every[2], s.every.count, s.every.room,
            self.centers, s.groups, EPSILON, slot.every.near, slot.every.weight)  # fmt: skip

    def compact(
        self,
        valid: Memory,
        stride: int,
        cloud: Memory,
        points: Memory | None,
        pixels: Memory | None,
        rank: Memory,
        count: Memory | View,
        stream: Stream,
    ) -> None:
        """Some of the sample's pixels, on the lattice of every stride-th, to dense lists (compact.cu)."""
        s, run = self._s, self._kernels.run
        run("compact_count", self._blocks, stream, valid, s.size, stride, self._counts)
        run("compact_scatter", self._blocks, stream, valid, cloud, s.size, stride, self._counts, points, pixels, rank,
            count)  # fmt: skip

    def _order(self, points: Memory, rank: Memory, b: Buckets, stride: int, into: Ordered, stream: Stream) -> Ordered:
        """Points into tiles, by the ranks of their pixels."""
        self._kernels.run("order_tiles", b.launch(), stream, points, rank, self._s.size, stride, b.tile, b.across,
                          *into)  # fmt: skip
        return into

    def pool(self, slot: Slot, stream: Stream) -> None:
        """Tokens to the mean over their nearest centres."""
        s, run = self._s, self._kernels.run
        run("order_points", s.near.launch(), stream, self.centers, self._all, s.near.count, s.near.room,
            *self._near)  # fmt: skip
        run("nearest_points", knn_launch(s.groups, s.pool), stream, self._near[0], self._near[2], s.near.count,
            s.near.room, self.centers, self.centers, s.groups, s.pool, self._pool_index, None)  # fmt: skip
        run("score_pool", per_thread(s.groups * s.dim_points), stream, self.tokens, s.dim_points, self._pool_index,
            s.pool, s.groups, slot.pooled)  # fmt: skip
