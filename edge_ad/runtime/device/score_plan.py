"""The scoring stage on the device through the score plan: any mapper, any precision."""

from __future__ import annotations

import numpy as np

from edge_ad.runtime.device.api import Driver, Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.kernels import KernelSet, warps
from edge_ad.runtime.device.networks import Network, run
from edge_ad.runtime.device.score import AUTO_PIXELS, TEXT, Taps
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.kernels.launch import Launch

PLAN_ROWS = 4096
"""Rows that one run of the score plan takes."""
ALIGNED = 256


class PlanScore:
    """Interpolated rows by one kernel, everything else by the score plan, in chunks: any mapper, any precision."""

    recordable = False

    def __init__(
        self,
        network: Network,
        driver: Driver,
        kernels: KernelSet,
        arena: Arena,
        sizes: Sizes,
        taps: Taps,
        stream: Stream,
        whole_text: bool,
    ) -> None:
        self._network, self._driver, self._kernels, self._s = network, driver, kernels, sizes
        self._whole_text = whole_text
        self._taps = taps
        self.rows = min(PLAN_ROWS, sizes.pixels)
        self._rgb = arena.device((self.rows, sizes.rgb_width))
        self._points = arena.device((self.rows, sizes.point_width))
        self._names = tuple(t.name for t in network.outputs)
        # One class index every 256 bytes: TensorRT wants its tensors so aligned.
        self._classes = arena.constant(np.repeat(np.arange(sizes.classes, dtype=np.int64), ALIGNED // 8), stream)
        self._some = {name: arena.device((self.rows,)) for name in self._names}

    def choose(self, slot: Slot, stream: Stream) -> None:
        """See :class:`Score`."""
        self._compare(slot, stream)
        self._kernels.run("score_choose_class", Launch((1, 1), 1), stream, slot.means, self._s.classes,
                          slot.report.class_index, slot.plan_index)  # fmt: skip

    def _compare(self, slot: Slot, stream: Stream) -> None:
        """Mean distance of some pixels to every anchor."""
        t = self._taps
        t.draw(self._kernels, slot, stream)
        rows = min(self.rows, AUTO_PIXELS)
        self._interpolate(slot, t.some_pixels, t.some_near, t.some_weight, t.some_count, 0, rows, stream)
        for c in range(self._s.classes):
            self._run(View(self._classes, ALIGNED * c, 8), {n: (d, 0) for n, d in self._some.items()}, rows, stream)
            self._kernels.run("score_anchor_mean", Launch((1, 1), 256), stream, self._some[TEXT[0]],
                              self._some[TEXT[1]], t.some_count, View(slot.means, 8 * c, 8))  # fmt: skip

    def enqueue(self, slot: Slot, stream: Stream, auto: bool, count: int | None) -> None:
        """See :class:`Score`. The number of runs is the host's: where it does not know the pixels it waits for them."""
        if TEXT[0] in self._names and not auto and not self._whole_text:
            self._compare(slot, stream)
        some = slot.scored
        if count is None:
            slot.out_count.fetch(stream)
            self._driver.synchronize(stream)
            count = int(slot.out_count.read()[0])
        for first in range(0, count, self.rows):
            self._interpolate(slot, some.pixels, some.near, some.weight, some.count, first, self.rows, stream)
            self._run(slot.plan_index, {n: (some.distances[n], 4 * first) for n in self._names}, self.rows, stream)

    def _interpolate(
        self,
        slot: Slot,
        pixels: Memory,
        near: Memory,
        weight: Memory,
        total: Memory | View,
        first: int,
        rows: int,
        stream: Stream,
    ) -> None:
        for which, table, width, taps, out in (
            ("rgb", slot.rgb_table, self._s.rgb_width, self._taps.colour(pixels), self._rgb),
            ("points", slot.point_table, self._s.point_width, (near, weight), self._points),
        ):
            self._kernels.run(f"score_operand_{which}", Launch(warps(rows), 128), stream, table, 0, width, 0, width, 0,
                              *taps, total, first, rows, out, width, slot.report.overflow)  # fmt: skip

    def _run(self, index: Memory | View, outputs: dict[str, tuple[Memory, int]], rows: int, stream: Stream) -> None:
        inputs: dict[str, tuple[tuple[int, ...], Memory | View]] = {
            "rgb_rows": ((rows, self._s.rgb_width), self._rgb),
            "point_rows": ((rows, self._s.point_width), self._points),
        }
        if any(t.name == "class_index" for t in self._network.inputs):
            inputs["class_index"] = ((1,), index)
        run(self._network, inputs, {n: ((rows,), View(d, at, 4 * rows)) for n, (d, at) in outputs.items()}, stream)
