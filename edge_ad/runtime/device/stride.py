"""Score stride on the device: which pixels are scored, and the others' distances; the same as ``runtime.stride``."""

from __future__ import annotations

import numpy as np

from edge_ad.runtime.device.api import Stream
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.kernels.launch import per_thread
from edge_ad.runtime.stride import lattice_axis


class StrideStage:
    """Queues both halves. Its scratch memory serves the points stream."""

    def __init__(self, kernels: KernelSet, arena: Arena, sizes: Sizes, points: PointBranch, stream: Stream) -> None:
        self._kernels, self._s, self._points = kernels, sizes, points
        offset, many, low, share = lattice_axis(sizes.size, sizes.score_stride)
        self._axis = arena.constant(low.astype(np.int32), stream), arena.constant(share, stream)
        self._lattice = sizes.size, offset, sizes.score_stride, many
        self._marks = arena.device((sizes.pixels,), np.uint8)

    def select(self, slot: Slot, stream: Stream) -> None:
        """Write ``slot.scored`` and ``slot.place`` from the valid pixels; after the interpolation weights are there."""
        run, launch = self._kernels.run, per_thread(self._s.pixels)
        run("stride_mark", launch, stream, slot.valid, *self._axis, *self._lattice, self._marks)
        some, every = slot.scored, slot.every
        assert not isinstance(some.count, type(None))
        self._points.compact(self._marks, 1, slot.cloud, None, some.pixels, slot.place, some.count, stream)
        run("stride_gather", launch, stream, some.pixels, some.count, self._points.rank, every.near, every.weight,
            some.near, some.weight)  # fmt: skip

    def spread(self, slot: Slot, names: tuple[str, ...], stream: Stream) -> None:
        """Write the distances of all valid pixels from those of the scored ones."""
        for name in names:
            self._kernels.run("stride_spread", per_thread(self._s.pixels), stream, slot.scored.distances[name],
                              slot.place, slot.valid, slot.every.pixels, slot.every.count, *self._axis, *self._lattice,
                              slot.every.distances[name])  # fmt: skip
