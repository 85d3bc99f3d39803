"""A slot: the buffers of one part in flight. With two, the next frame's points overlap this frame's networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import U8, Sample, SampleTransform
from edge_ad.runtime.device.api import Driver, Event, Memory
from edge_ad.runtime.device.buffers import Arena, Input, Output, View
from edge_ad.runtime.device.sizes import Sizes

REPORT_BYTES = 128
_INITIAL = np.zeros(REPORT_BYTES // 8, np.int64)


@dataclass(frozen=True)
class Rows:
    """Pixels with their near centres and weights, how many there are, and a distance a term for each.

    pixels : (p,) int32. near : (p, 3) int32. weight : (p, 3). count : int32. distances : (p,) each.
    """

    pixels: Memory
    near: Memory
    weight: Memory
    count: Memory | View
    distances: dict[str, Memory]

    @staticmethod
    def of(arena: Arena, p: int, count: Memory | View, most: int) -> Rows:
        """Room for ``p`` pixels; ``most`` distances, which the score plan writes in whole chunks."""
        return Rows(
            arena.device((p,), np.int32),
            arena.device((p, 3), np.int32),
            arena.device((p, 3)),
            count,
            {name: arena.device((most,)) for name in ("rgb", "3d", "text_rgb", "text_3d")},
        )


class Report:
    """128 bytes about a part, in one copy.

    byte 0 float64 mean distance to the anchor; 8 int32 class; 12 overflows; 16 areas kept; 20 bits of
    ``top_of_valid``; 24 float64 score; 32 the four float32 of ``cloud_frame``; 48 int32 valid pixels; 56 two int32 of
    ``part_verdict``; 64 five of ``part_counts``; 88 three float64 of ``map_statistics``.
    """

    def __init__(self, report: Memory) -> None:
        self.anchor_mean = View(report, 0, 8)
        self.class_index, self.overflow = View(report, 8, 4), View(report, 12, 4)
        self.kept, self.top, self.score = View(report, 16, 4), View(report, 20, 4), View(report, 24, 8)
        self.cloud_frame, self.count = View(report, 32, 16), View(report, 48, 4)
        self.verdict, self.counts = View(report, 56, 8), View(report, 64, 20)
        self.statistics = View(report, 88, 24)


@dataclass(frozen=True)
class Told:
    """A report as the host reads it."""

    anchor_mean: float
    class_index: int
    overflows: int
    score: float
    factor: float
    valid: int
    lost: int
    either: int
    measured: int
    drawn: int
    anomalous: bool

    @staticmethod
    def read(words: NDArray[np.int32]) -> Told:
        """From the (32,) int32 that :class:`Report` lays out."""
        wide = words.view(np.float64)
        valid, lost, either, measured, drawn = (int(n) for n in words[16:21])
        return Told(
            anchor_mean=float(wide[0]),
            class_index=int(words[2]),
            overflows=int(words[3]),
            score=float(wide[3]),
            factor=float(words.view(np.float32)[11]),
            valid=valid,
            lost=lost,
            either=either,
            measured=measured,
            drawn=drawn,
            anomalous=bool(words[15]),
        )


class Slot:
    """Buffers, events and outputs of one part."""

    def __init__(self, driver: Driver, s: Sizes, half: bool, distance_rows: int) -> None:
        arena = self.arena = Arena(driver)
        p = s.pixels
        self.image, self.cloud = arena.device((3, p)), arena.device((p, 3))
        self.valid, self.lost = arena.device((p,), np.uint8), arena.device((p,), np.uint8)
        self.sample_image = Input(arena, (3, s.size, s.size), np.float32, device=self.image)
        self.sample_cloud = Input(arena, (s.size, s.size, 3), np.float32, device=self.cloud)
        self.sample_valid = Input(arena, (s.size, s.size), np.uint8, device=self.valid)
        self.sample_lost = Input(arena, (s.size, s.size), np.uint8, device=self.lost)
        report = arena.device((REPORT_BYTES,), np.uint8)
        self.report = Report(report)
        self.report_in = Input(arena, (REPORT_BYTES // 8,), np.int64, device=report)  # written by kernels as well
        self.points = arena.device((p, 3))
        self.every = Rows.of(arena, p, self.report.count, distance_rows)
        self.scored = self.every
        if s.score_stride > 1:
            self.scored = Rows.of(arena, p, arena.device((1,), np.int32), distance_rows)
            self.place = arena.device((p,), np.int32)
        self.rgb_tokens = arena.device((s.rgb_tokens, s.dim_rgb))
        self.pooled = arena.device((s.groups, s.dim_points))
        self.rgb_table = arena.device((s.rgb_tokens, s.rgb_width))
        self.point_table = arena.device((s.groups, s.point_width))
        self.rgb_level, self.point_level = arena.device((s.rgb_tokens,)), arena.device((s.groups,))
        self.rgb_half: Memory | None = arena.device((s.rgb_tokens, s.rgb_width), np.uint16) if half else None
        self.point_half: Memory | None = arena.device((s.groups, s.point_width), np.uint16) if half else None
        self.map, self.smoothed, self.mask_weight = arena.device((p,)), arena.device((p,)), arena.device((p,))
        self.mask = arena.device((p,), np.uint8)
        self.plan_index = arena.device((1,), np.int64)
        self.plan_in = Input(arena, (1,), np.int64, device=self.plan_index)
        self.means = arena.device((s.classes,), np.float64)
        self.out_map = Output(arena, self.smoothed, (s.size, s.size), np.float32)
        self.out_mask = Output(arena, self.mask, (s.size, s.size), np.uint8)
        self.out_valid = Output(arena, self.valid, (s.size, s.size), np.uint8)
        self.out_lost = Output(arena, self.lost, (s.size, s.size), np.uint8)
        self.out_report = Output(arena, report, (REPORT_BYTES // 4,), np.int32)
        self.out_count = Output(arena, self.scored.count, (1,), np.int32)
        self.out_means = Output(arena, self.means, (s.classes,), np.float64)
        self.out_distances = {name: Output(arena, d, (p,), np.float32) for name, d in self.every.distances.items()}
        self.flags: Input | None = None
        self._flags_arena = Arena(driver)
        self.cut, self.joined, self.done = driver.event(), driver.event(), driver.event()
        self.marks: dict[str, Event] = {}

    def put_class(self, index: int) -> None:
        """Set the report's beginning: the class (or -1: not known), zeros else."""
        report = self.report_in.array
        report[:] = _INITIAL
        report.view(np.int32)[2] = max(index, 0)
        self.plan_in.array[0] = max(index, 0)

    def put_flags(self, flags: U8) -> Input:
        """Write which pixels of the camera's grid are the part's, (H, W); the slot must be idle."""
        if self.flags is None or self.flags.shape != flags.shape:
            self._flags_arena.free()
            self._flags_arena = Arena(self._flags_arena.driver)
            self.flags = Input(self._flags_arena, (flags.shape[0], flags.shape[1]), np.uint8)
        self.flags.array[:] = flags
        return self.flags

    def put_sample(self, sample: Sample) -> tuple[Input, ...]:
        """Write a sample that was cut on the host; the slot must be idle."""
        self.sample_image.array[:], self.sample_cloud.array[:] = sample.rgb, sample.xyz
        self.sample_valid.array[:], self.sample_lost.array[:] = sample.valid, sample.lost
        return self.sample_image, self.sample_cloud, self.sample_valid, self.sample_lost

    def free(self) -> None:
        """Give all memory back; the slot must be idle."""
        self._flags_arena.free()
        self.arena.free()

    @property
    def nbytes(self) -> int:
        """Device memory."""
        return self.arena.nbytes + self._flags_arena.nbytes


def window(t: SampleTransform) -> tuple[int, int, int, int, int, int]:
    """Arguments of ``preprocess``: height, width, y0, x0, side, size."""
    return t.frame_height, t.frame_width, t.y0, t.x0, t.side, t.size
