"""The scoring stage on the device: tables to distances, by kernels (``score_plan.py``: by the score plan)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge_ad.runtime.device.api import Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.kernels import KernelSet, warps
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.device.weights import Layer, ScoreWeights, TextLayer
from edge_ad.runtime.kernels.launch import Launch, per_thread
from edge_ad.runtime.kernels.score_reference import axis_taps

AUTO_PIXELS = 1024
"""As ``runtime.detector.AUTO_PIXELS``; a test holds them together."""
CHUNK = 8192
"""Rows of the products at a time."""
TEXT = ("text_rgb", "text_3d")


class Score(Protocol):
    """Queues the distances of a part's valid pixels."""

    recordable: bool

    def choose(self, slot: Slot, stream: Stream) -> None:
        """Write the class with the nearest anchor, and ``slot.means``; the tables' text columns must be there."""

    def enqueue(self, slot: Slot, stream: Stream, auto: bool, count: int | None) -> None:
        """Write the distances of ``slot.scored``, and ``slot.means`` where they are asked for and ``auto`` did not.

        count : how many pixels are scored, where the host knows.
        """


class Taps:
    """Arguments of the kernels for interpolation: bilinear tables, and a list of pixels with their near centres."""

    def __init__(self, arena: Arena, sizes: Sizes, stream: Stream) -> None:
        low, share = axis_taps(sizes.size, sizes.grid)
        self.low, self.share = arena.constant(low, stream), arena.constant(share, stream)
        self.size, self.grid = sizes.size, sizes.grid
        self.some_pixels = arena.device((AUTO_PIXELS,), np.int32)
        self.some_near, self.some_weight = arena.device((AUTO_PIXELS, 3), np.int32), arena.device((AUTO_PIXELS, 3))
        self.some_count = arena.device((1,), np.int32)

    def colour(self, pixels: Memory) -> tuple[Memory, Memory, Memory, int, int]:
        """Arguments pixel, low, share, size, grid."""
        return pixels, self.low, self.share, self.size, self.grid

    def draw(self, kernels: KernelSet, slot: Slot, stream: Stream) -> None:
        """Choose the pixels on which classes are compared."""
        every = slot.every
        kernels.run("score_subset", per_thread(AUTO_PIXELS), stream, every.pixels, every.near, every.weight,
                    every.count, AUTO_PIXELS, self.some_pixels, self.some_near, self.some_weight,
                    self.some_count)  # fmt: skip


class _Layer:
    """A second layer on the device, padded for the products."""

    def __init__(self, layer: Layer, half: bool, arena: Arena, stream: Stream) -> None:
        self.column, self.hidden, self.rank = layer.column, layer.hidden, layer.rank
        self.stride = -(-layer.hidden // 32) * 32
        weight = np.zeros((layer.rank, self.stride), np.float16 if half else np.float32)
        weight[:, : layer.hidden] = layer.weight
        self.weight, self.bias = arena.constant(weight, stream), arena.constant(layer.bias, stream)


class _Text(_Layer):
    def __init__(self, text: TextLayer, half: bool, arena: Arena, stream: Stream) -> None:
        super().__init__(text.layer, half, arena, stream)
        self.anchors, self.rest = arena.constant(text.anchors, stream), arena.constant(text.rest, stream)


class FusedScore:
    """GACM by one kernel; the MLPs by operand, product (our own, on the tensor cores in FP16) and distance kernels.

    half : tables, operands and weights in FP16 storage; sums, LayerNorm and distances stay float32. whole_text : text
        terms of every pixel (beta > 0); else on the pixels of ``auto``, for the distance to the anchor. by_class :
        the tables change with the class.
    """

    recordable = True

    def __init__(
        self,
        weights: ScoreWeights,
        kernels: KernelSet,
        arena: Arena,
        sizes: Sizes,
        taps: Taps,
        half: bool,
        whole_text: bool,
        by_class: bool,
        stream: Stream,
    ) -> None:
        w = self._w = weights
        self._by_class = by_class
        self._kernels, self._s, self._half, self._kind = kernels, sizes, half, "f16" if half else "f32"
        self._taps = taps
        self._gamma, self._beta = arena.constant(w.gamma, stream), arena.constant(w.beta, stream)
        self._to_rgb = _Layer(w.points_to_rgb, half, arena, stream)
        text = w.text or ()
        self._text = [_Text(t, half, arena, stream) for t in text]
        self._whole_text = whole_text
        layers = [self._to_rgb, *self._text]
        self._chunk = min(CHUNK, sizes.pixels)
        rows = max(self._chunk, AUTO_PIXELS)
        self._operand = arena.device((rows, max(x.stride for x in layers)), np.uint16 if half else np.float32)
        self._mapped = arena.device((rows, max(x.rank for x in layers)))

    def choose(self, slot: Slot, stream: Stream) -> None:
        """See :class:`Score`."""
        self._pack(slot, stream)
        self._compare(slot, stream)
        self._kernels.run("score_choose_class", Launch((1, 1), 1), stream, slot.means, self._s.classes,
                          slot.report.class_index, slot.plan_index)  # fmt: skip

    def _pack(self, slot: Slot, stream: Stream) -> None:
        """The tables into FP16 storage, where they are read from there."""
        if slot.rgb_half is None or slot.point_half is None:
            return
        for table, packed in ((slot.rgb_table, slot.rgb_half), (slot.point_table, slot.point_half)):
            many = table.nbytes // 4
            self._kernels.run("score_pack", per_thread(min(many, 1 << 18)), stream, table, np.int64(many), packed,
                              slot.report.overflow)  # fmt: skip

    @staticmethod
    def _tables(slot: Slot) -> tuple[Memory, Memory]:
        return slot.rgb_half or slot.rgb_table, slot.point_half or slot.point_table

    def enqueue(self, slot: Slot, stream: Stream, auto: bool, count: int | None) -> None:
        """See :class:`Score`. The number of pixels is taken from the device."""
        some = slot.scored
        if self._by_class or not auto:  # else the tables are those that the class was chosen by
            self._pack(slot, stream)
        rgb, points = self._tables(slot)
        if self._text and not auto and not self._whole_text:
            self._compare(slot, stream)
        self._gacm(slot, rgb, points, stream)
        for first in range(0, self._s.pixels, self._chunk):
            here = some.count, first, min(self._chunk, self._s.pixels - first)
            self._mlp(self._to_rgb, points, self._near(slot), here, slot, stream)
            shared = 4 * self._w.dim_rgb * 4
            self._kernels.run("score_distance_rgb", Launch(warps(here[2]), 128, shared), stream, rgb, int(self._half),
                              self._s.rgb_width, self._w.dim_rgb, *self._taps.colour(some.pixels), *here, self._mapped,
                              self._to_rgb.rank, self._to_rgb.rank, some.distances["rgb"])  # fmt: skip
            if not self._whole_text:
                continue
            for name, layer, table, taps in self._text_terms(slot, rgb, points):
                self._mlp(layer, table, taps, here, slot, stream)
                self._kernels.run("score_distance_anchor", Launch(warps(here[2]), 128), stream, layer.anchors,
                                  layer.rest, slot.report.class_index, layer.rank, self._mapped, layer.rank, *here,
                                  some.distances[name])  # fmt: skip

    def _near(self, slot: Slot) -> tuple[str, tuple[Memory, ...]]:
        return "points", (slot.scored.near, slot.scored.weight)

    def _text_terms(
        self, slot: Slot, rgb: Memory, points: Memory
    ) -> list[tuple[str, _Text, Memory, tuple[str, tuple[Memory | int, ...]]]]:
        if not self._text:
            return []
        return [
            (TEXT[0], self._text[0], rgb, ("rgb", self._taps.colour(slot.scored.pixels))),
            (TEXT[1], self._text[1], points, self._near(slot)),
        ]

    def _gacm(self, slot: Slot, rgb: Memory, points: Memory, stream: Stream) -> None:
        w, s, some = self._w, self._s, slot.scored
        launch = Launch(warps(s.pixels), 128, 4 * 2 * w.dim_points * 4)
        self._kernels.run("score_gacm", launch, stream, rgb, s.rgb_width, points, s.point_width, int(self._half),
                          *self._taps.colour(some.pixels), some.near, some.weight, w.dim_rgb, w.dim_points, self._gamma,
                          self._beta, w.epsilon, some.count, 0, s.pixels, some.distances["3d"])  # fmt: skip

    def _mlp(
        self,
        layer: _Layer,
        table: Memory,
        taps: tuple[str, tuple[Memory | int, ...]],
        rows: tuple[Memory | View, int, int],
        slot: Slot,
        stream: Stream,
    ) -> None:
        """Operand and product of some rows: ``self._mapped``, (rows, rank)."""
        which, arguments = taps
        width = self._s.rgb_width if which == "rgb" else self._s.point_width
        self._kernels.run(f"score_operand_{which}", Launch(warps(rows[2]), 128), stream, table, int(self._half), width,
                          layer.column, layer.hidden, 1, *arguments, *rows, self._operand, layer.stride,
                          slot.report.overflow)  # fmt: skip
        grid = (-(-layer.rank // 64), -(-rows[2] // 64))
        self._kernels.run(f"score_product_{self._kind}", Launch(grid, 128 if self._half else 256), stream,
                          self._operand, layer.stride, layer.weight, layer.stride, layer.bias, self._mapped, layer.rank,
                          *rows, layer.rank, layer.stride, 1)  # fmt: skip

    def _compare(self, slot: Slot, stream: Stream) -> None:
        """Mean distance of some pixels to every anchor."""
        t = self._taps
        rgb, points = self._tables(slot)
        t.draw(self._kernels, slot, stream)
        rows = t.some_count, 0, AUTO_PIXELS
        terms = ((self._text[0], rgb, ("rgb", t.colour(t.some_pixels))),
                 (self._text[1], points, ("points", (t.some_near, t.some_weight))))  # fmt: skip
        for k, (layer, table, taps) in enumerate(terms):
            self._mlp(layer, table, taps, rows, slot, stream)
            self._kernels.run("score_class_means", Launch((self._s.classes, 1), 256), stream, layer.anchors, layer.rest,
                              layer.rank, self._mapped, layer.rank, t.some_count, k, slot.means)  # fmt: skip
