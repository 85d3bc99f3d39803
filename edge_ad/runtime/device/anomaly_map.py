"""Distances to the smoothed map on the device: eq. 16 and ``runtime.maps.smooth``."""

from __future__ import annotations

from edge_ad.errors import EdgeAdError
from edge_ad.presets import Fusion
from edge_ad.runtime.device.api import Driver, Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.score import Taps
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.kernels.launch import Launch, per_thread, smoothing


class MapStage:
    """Queues fusion and smoothing of one part."""

    def __init__(
        self,
        driver: Driver,
        kernels: KernelSet,
        arena: Arena,
        sizes: Sizes,
        taps: Taps,
        fusion: Fusion,
        balance: tuple[float, float, float],
        has_text: bool,
        stream: Stream,
    ) -> None:
        self._driver, self._kernels, self._s, self._over_valid = driver, kernels, sizes, fusion.smooth_over == "valid"
        self._taps = taps
        self._alpha = float(fusion.alpha / (balance[0] * balance[1]))
        self._beta = float(fusion.beta / balance[2])
        self._text = has_text and fusion.beta > 0
        filters = self._filters = smoothing(fusion)
        if filters is not None:
            try:
                self._launch: Launch | None = filters.launch(sizes.size)
            except EdgeAdError:  # beyond shared memory
                self._launch, self._rows = None, arena.device((sizes.pixels,))
            self._arrays = tuple(arena.constant(a, stream) for a in (filters.radius, filters.scale, filters.taps))

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Write ``slot.smoothed``, and the mean distance to the anchor where the text terms are whole.

        Distances are first divided by the expected ones, where the model predicts them.
        """
        run, p, d = self._kernels.run, self._s.pixels, slot.distances
        if self._s.levels:
            run("score_levels", per_thread(p), stream, slot.rgb_level, slot.point_level,
                *self._taps.colour(slot.pixels), slot.near, slot.weight, slot.count, d["rgb"], d["3d"])  # fmt: skip
        target = slot.map if self._filters is not None else slot.smoothed
        self._driver.zero(target, 4 * p, stream)
        text = (d["text_rgb"], d["text_3d"]) if self._text else (None, None)
        run("score_fuse", per_thread(p), stream, d["rgb"], d["3d"], *text, self._alpha, self._beta, slot.pixels,
            slot.count, target)  # fmt: skip
        if self._text:
            run("score_anchor_mean", Launch((1, 1), 256), stream, d["text_rgb"], d["text_3d"], slot.count,
                slot.anchor_mean)  # fmt: skip
        if self._filters is None:
            return
        weight = None
        if self._over_valid:
            run("mask_to_float", per_thread(p), stream, slot.valid, p, slot.smoothed)
            self._filter(slot.smoothed, slot.mask_weight, None, None, stream)
            weight = slot.mask_weight
        self._filter(slot.map, slot.smoothed, slot.valid if weight is not None else None, weight, stream)

    def _filter(self, image: Memory, out: Memory, valid: Memory | None, weight: Memory | None, stream: Stream) -> None:
        """All filters, one launch; those that reach too far for that (a Gaussian of large sigma) an axis a launch."""
        f, size, run = self._filters, self._s.size, self._kernels.run
        assert f is not None
        if self._launch is not None:
            run("smooth", self._launch, stream, image, size, len(f.radius), *self._arrays, f.rim, valid, weight, out)
            return
        first = 0
        for k, (radius, scale) in enumerate(zip(f.radius.tolist(), f.scale.tolist())):
            taps, last = View(self._arrays[2], 4 * first, 4 * (2 * radius + 1)), k == len(f.radius) - 1
            first += 2 * radius + 1
            over = (valid, weight) if last else (None, None)
            source = image if k == 0 else out
            run("score_filter", per_thread(size * size), stream, source, size, radius, taps, 1.0, 0, None, None,
                self._rows)  # fmt: skip
            run("score_filter", per_thread(size * size), stream, self._rows, size, radius, taps, scale, 1, *over, out)
