"""Distances to the smoothed map on the device: eq. 16 and ``runtime.maps.smooth``."""

from __future__ import annotations

from edge_ad.presets import Fusion
from edge_ad.runtime.device.api import Driver, Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.score import TEXT, Taps
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.device.stride import StrideStage
from edge_ad.runtime.kernels.launch import Launch, per_thread, smoothing
from edge_ad.runtime.maps import RIM_WEIGHT


class MapStage:
    """Queues fusion and smoothing of one part. terms : the distances that scoring writes."""

    def __init__(
        self,
        driver: Driver,
        kernels: KernelSet,
        arena: Arena,
        sizes: Sizes,
        taps: Taps,
        fusion: Fusion,
        balance: tuple[float, float, float],
        terms: tuple[str, ...],
        stride: StrideStage | None,
        stream: Stream,
    ) -> None:
        self._driver, self._kernels, self._s, self._over_valid = driver, kernels, sizes, fusion.smooth_over == "valid"
        self._taps, self._stride = taps, stride
        self._rim, self._spread = fusion.rim, fusion.spread
        larger = fusion.combine == "max"
        self._alpha = float(fusion.alpha if larger else fusion.alpha / (balance[0] * balance[1]))
        self._larger = int(larger), float(1 / balance[0]), float(1 / balance[1])
        self._beta = float(fusion.beta / balance[2])
        self._terms = terms
        self._text = TEXT[0] in terms and fusion.beta > 0
        filters = self._filters = smoothing(fusion)
        if filters is not None:
            self._launch: Launch | None = filters.launch(sizes.size) if filters.fits else None
            self._rows = None if filters.fits else arena.device((sizes.pixels,))
            self._arrays = tuple(arena.constant(a, stream) for a in (filters.radius, filters.scale, filters.taps))

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Write ``slot.smoothed``, and the mean distance to the anchor where the text terms are whole.

        Distances are first divided by the expected ones, where the model predicts them.
        """
        run, p, d, every, some = self._kernels.run, self._s.pixels, slot.every.distances, slot.every, slot.scored
        if self._s.levels:
            run("score_levels", per_thread(p), stream, slot.rgb_level, slot.point_level,
                *self._taps.colour(some.pixels), some.near, some.weight, some.count, some.distances["rgb"],
                some.distances["3d"])  # fmt: skip
        if self._stride is not None:
            self._stride.spread(slot, self._terms, stream)
        target = slot.map if self._filters is not None else slot.smoothed
        self._driver.zero(target, 4 * p, stream)
        text = (d["text_rgb"], d["text_3d"]) if self._text else (None, None)
        run("score_fuse", per_thread(p), stream, d["rgb"], d["3d"], *text, self._alpha, self._beta, *self._larger,
            every.pixels, every.count, target)  # fmt: skip
        if self._text:
            run("score_anchor_mean", Launch((1, 1), 256), stream, d["text_rgb"], d["text_3d"], every.count,
                slot.report.anchor_mean)  # fmt: skip
        if self._filters is None:
            return
        weight = None
        if self._over_valid:
            run("rim_weight", per_thread(p), stream, slot.valid, self._s.size, self._rim, RIM_WEIGHT, slot.smoothed,
                slot.map)  # fmt: skip
            self._filter(slot.smoothed, slot.mask_weight, None, None, stream)
            weight = slot.mask_weight
        spread = self._spread if self._over_valid else 0
        inside = slot.valid if weight is not None and spread == 0 else None
        self._filter(slot.map, slot.smoothed, inside, weight, stream)
        if spread:
            run("top_of_valid", per_thread(p), stream, slot.smoothed, slot.valid, p, slot.report.top)
            run("spread_map", per_thread(p), stream, slot.valid, self._s.size, spread, slot.report.top,
                slot.smoothed)  # fmt: skip

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
