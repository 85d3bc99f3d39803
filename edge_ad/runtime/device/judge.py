"""From smoothed maps to masks, areas and the camera's grid, on the device: ``runtime.finish`` in kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_ad.frame import F32, Region, SampleTransform
from edge_ad.presets import Preset
from edge_ad.runtime.device.api import Memory, Stream
from edge_ad.runtime.device.buffers import Arena, View
from edge_ad.runtime.device.frame import MOST_AREAS, AreaList, FrameSlot
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.finish import LOST_MIN_PX
from edge_ad.runtime.kernels.launch import FPS, STAT_FIELDS, Launch, per_thread
from edge_ad.runtime.limits import Limits


class Areas:
    """Connected areas of a mask of one size (regions.cu); scratch memory for one stream."""

    def __init__(self, kernels: KernelSet, arena: Arena, height: int, width: int) -> None:
        self._run, self.height, self.width = kernels.run, height, width
        self.n = height * width
        self.labels = arena.device((self.n,), np.int32)
        self._stats = arena.device((self.n, STAT_FIELDS), np.int32)

    def find(
        self,
        mask: Memory,
        image: Memory,
        least: int,
        count: Memory | View,
        boxes: Memory | None,
        stream: Stream,
    ) -> None:
        """Drop areas of fewer than ``least`` pixels from the mask, count the others and list them, if ``boxes``."""
        run, each = self._run, per_thread(self.n)
        run("label_start", each, stream, mask, self.n, self.labels, self._stats)
        run("label_join", each, stream, self.height, self.width, self.labels)
        run("label_measure", each, stream, image, self.height, self.width, self.labels, self._stats)
        most = 0 if boxes is None else MOST_AREAS
        run("label_collect", each, stream, self.labels, self._stats, self.n, least, most, mask, boxes, count)


class JudgeStage:
    """Queues score, decision and mask of a part, and what a frame's parts add up to."""

    def __init__(
        self,
        kernels: KernelSet,
        arena: Arena,
        sizes: Sizes,
        preset: Preset,
        limits: Sequence[Limits],
        stream: Stream,
    ) -> None:
        self._kernels, self._s, self._preset = kernels, sizes, preset
        self._areas = Areas(kernels, arena, sizes.size, sizes.size)
        self._mask_limits = arena.constant(np.array([x.mask for x in limits], np.float32), stream)
        self._score_limits = arena.constant(np.array([x.score for x in limits], np.float64), stream)
        self._camera: dict[tuple[int, int], tuple[Arena, Areas]] = {}
        self._arena = arena

    def enqueue(self, slot: Slot, stream: Stream) -> None:
        """Write ``slot.mask`` and the report's score and verdict from ``slot.smoothed``; the same for every frame."""
        run, n, r = self._kernels.run, self._s.pixels, slot.report
        fusion, p = self._preset.fusion, self._preset
        run("map_statistics", FPS, stream, slot.smoothed, n, r.statistics)
        run("part_verdict", Launch((1, 1), 1), stream, r.counts, r.cloud_frame, r.overflow, r.statistics,
            int(fusion.score != "max"), self._score_limits, r.class_index, p.limits.min_valid, p.points.group_size,
            r.score, r.verdict)  # fmt: skip
        run("threshold_map", per_thread(n), stream, slot.smoothed, slot.valid, self._s.size, self._s.size,
            self._mask_limits, r.class_index, slot.mask)  # fmt: skip
        self._areas.find(slot.mask, slot.smoothed, fusion.min_region_px, r.kept, None, stream)
        run("keep_above", per_thread(n), stream, self._areas.labels, r.verdict, r.kept, n, slot.mask)

    def join(self, slot: Slot, frame: FrameSlot, t: SampleTransform, stream: Stream) -> None:
        """Add a part to the frame's map, mask and lost depth."""
        self._kernels.run("to_camera", per_thread(frame.pixels), stream, slot.smoothed, slot.mask, slot.lost,
                          slot.report.verdict, t.size, t.y0, t.x0, t.side, *frame.size, frame.map, frame.mask,
                          frame.lost)  # fmt: skip

    def finish(self, frame: FrameSlot, stream: Stream) -> None:
        """The frame's areas, once all its parts have been joined; and all that the host reads of it."""
        driver = self._arena.driver
        areas = self._areas_of(frame, stream)
        for mask, least, listed in (
            (frame.mask, 1, frame.areas["anomaly"]),
            (frame.lost, LOST_MIN_PX, frame.areas["lost-depth"]),
        ):
            driver.zero(listed.count, 4, stream)
            areas.find(mask, frame.map, least, listed.count, listed.boxes, stream)
            self._kernels.run("region_measures", Launch((MOST_AREAS, 1), 256), stream, areas.labels, listed.boxes,
                              listed.count, MOST_AREAS, frame.xyz, *frame.size, listed.measures)  # fmt: skip
            listed.fetch(stream)
        for out in (frame.out_map, frame.out_mask, frame.out_lost, frame.out_seen):
            out.fetch(stream)

    def _areas_of(self, frame: FrameSlot, stream: Stream) -> Areas:
        """Scratch for frames of a size; that of another size goes (a camera changed its mode)."""
        if frame.size not in self._camera:
            driver = self._arena.driver
            if self._camera:
                driver.synchronize(stream)
            self._free()
            own = Arena(driver)
            self._camera[frame.size] = own, Areas(self._kernels, own, *frame.size)
        return self._camera[frame.size][1]

    def _free(self) -> None:
        while self._camera:
            self._camera.popitem()[1][0].free()

    @property
    def nbytes(self) -> int:
        """Device memory of the scratch on the camera's grid."""
        return sum(own.nbytes for own, _ in self._camera.values())

    def free(self) -> None:
        """Give the scratch on the camera's grid back; nothing is queued."""
        self._free()


def read_regions(listed: AreaList, kind: str) -> tuple[Region, ...] | None:
    """The listed areas as :func:`edge_ad.runtime.maps.find_regions` gives them; None: more than the list holds."""
    count = int(listed.out_count.read()[0])
    if count > MOST_AREAS:
        return None
    boxes, measures = listed.out_boxes.read()[:count], listed.out_measures.read()[:count]
    found = [(_region(row, values, kind), int(row[7])) for row, values in zip(boxes, measures)]
    # Equal in peak and area: in the order of OpenCV's labels.
    return tuple(region for region, first in sorted(found, key=lambda f: (-f[0].peak, -f[0].area_px, f[1])))


def _region(row: np.ndarray, values: np.ndarray, kind: str) -> Region:  # type: ignore[type-arg]
    area_px = int(row[1])
    position = extent = None
    mm2 = float(values[0] / values[1]) * 1e6 * area_px if values[1] else 0.0
    if values[2]:
        x, y, z = (float(v) for v in values[3:6] / values[2] * 1e3)
        size: F32 = (values[9:12].astype(np.float32) - values[6:9].astype(np.float32)) * 1e3
        position, extent = (x, y, z), (float(size[0]), float(size[1]), float(size[2]))
    x0, y0, x1, y1 = (int(v) for v in row[2:6])
    return Region((x0, y0, x1, y1), area_px, mm2, float(row[6:7].view(np.float32)[0]), position, extent, kind)


def limits_in_order(limits: Mapping[str, Limits], classes: Sequence[str]) -> list[Limits]:
    """A class's limits at its number."""
    return [limits[c] for c in classes]
