"""A slot: the buffers of one part in flight. With two, the next frame's points overlap this frame's networks."""

from __future__ import annotations

import numpy as np

from edge_ad.frame import F32, U8, Bool, Sample, SampleTransform
from edge_ad.runtime.device.api import Driver, Event, Memory
from edge_ad.runtime.device.buffers import Arena, Input, Output, View
from edge_ad.runtime.device.sizes import Sizes

REPORT_BYTES = 64
_INITIAL = np.zeros(REPORT_BYTES // 8, np.int64)


class FrameInput:
    """What the host gives of a camera's frame, for frames of one size."""

    def __init__(self, driver: Driver, height: int, width: int) -> None:
        self.arena = Arena(driver)
        self.colour = Input(self.arena, (height, width, 3), np.uint8)
        self.xyz = Input(self.arena, (height, width, 3), np.float32)
        self.flags = Input(self.arena, (height, width), np.uint8)
        self.shape = (height, width)


class Slot:
    """Buffers, events and outputs of one part.

    report : 64 bytes: float64 mean distance to the anchor, int32 class, int32 overflows, (16 unused), 4 float32 of
        ``cloud_frame``, int32 number of valid pixels.
    """

    def __init__(self, driver: Driver, s: Sizes, half: bool, classes: int, distance_rows: int) -> None:
        arena = self.arena = Arena(driver)
        p = s.pixels
        self.image, self.cloud = arena.device((3, p)), arena.device((p, 3))
        self.valid, self.lost = arena.device((p,), np.uint8), arena.device((p,), np.uint8)
        self.sample_image = Input(arena, (3, s.size, s.size), np.float32, device=self.image)
        self.sample_cloud = Input(arena, (s.size, s.size, 3), np.float32, device=self.cloud)
        self.sample_valid = Input(arena, (s.size, s.size), np.uint8, device=self.valid)
        self.points, self.pixels = arena.device((p, 3)), arena.device((p,), np.int32)
        self.near, self.weight = arena.device((p, 3), np.int32), arena.device((p, 3))
        self.rgb_tokens = arena.device((s.rgb_tokens, s.dim_rgb))
        self.pooled = arena.device((s.groups, s.dim_points))
        self.rgb_table = arena.device((s.rgb_tokens, s.rgb_width))
        self.point_table = arena.device((s.groups, s.point_width))
        self.rgb_level, self.point_level = arena.device((s.rgb_tokens,)), arena.device((s.groups,))
        self.rgb_half: Memory | None = arena.device((s.rgb_tokens, s.rgb_width), np.uint16) if half else None
        self.point_half: Memory | None = arena.device((s.groups, s.point_width), np.uint16) if half else None
        self.distances = {name: arena.device((distance_rows,)) for name in ("rgb", "3d", "text_rgb", "text_3d")}
        self.map, self.smoothed, self.mask_weight = arena.device((p,)), arena.device((p,)), arena.device((p,))
        report = arena.device((REPORT_BYTES,), np.uint8)
        self.report_in = Input(arena, (REPORT_BYTES // 8,), np.int64, device=report)  # written by kernels as well
        self.anchor_mean = View(report, 0, 8)
        self.class_index, self.overflow = View(report, 8, 4), View(report, 12, 4)
        self.cloud_frame = View(report, 32, 16)
        self.plan_index = arena.device((1,), np.int64)
        self.plan_in = Input(arena, (1,), np.int64, device=self.plan_index)
        self.count = View(report, 48, 4)
        self.means = arena.device((classes,), np.float64)
        self.out_map = Output(arena, self.smoothed, (s.size, s.size), np.float32)
        self.out_report = Output(arena, report, (REPORT_BYTES // 4,), np.int32)
        self.out_means = Output(arena, self.means, (classes,), np.float64)
        self.out_distances = {name: Output(arena, d, (p,), np.float32) for name, d in self.distances.items()}
        self.frame: FrameInput | None = None
        self.cut, self.joined, self.done = driver.event(), driver.event(), driver.event()
        self.marks: dict[str, Event] = {}

    def put_class(self, index: int) -> None:
        """Set the report's beginning: the class (or -1: not known), no overflow."""
        report = self.report_in.array
        report[:] = _INITIAL
        report.view(np.int32)[2] = max(index, 0)
        self.plan_in.array[0] = max(index, 0)

    def put_frame(self, driver: Driver, colour: U8, xyz: F32, foreground: Bool) -> FrameInput:
        """Write a frame's images where the device takes them; the slot must be idle."""
        shape = (int(colour.shape[0]), int(colour.shape[1]))
        if self.frame is None or self.frame.shape != shape:
            if self.frame is not None:
                self.frame.arena.free()
            self.frame = FrameInput(driver, *shape)
        self.frame.colour.array[:], self.frame.xyz.array[:] = colour, xyz
        self.frame.flags.array[:] = foreground
        return self.frame

    def put_sample(self, sample: Sample) -> None:
        """Write a sample that was cut on the host; the slot must be idle."""
        self.sample_image.array[:], self.sample_cloud.array[:] = sample.rgb, sample.xyz
        self.sample_valid.array[:] = sample.valid

    def free(self) -> None:
        """Give all memory back; the slot must be idle."""
        if self.frame is not None:
            self.frame.arena.free()
        self.arena.free()

    @property
    def nbytes(self) -> int:
        """Device memory."""
        return self.arena.nbytes + (self.frame.arena.nbytes if self.frame is not None else 0)


def window(t: SampleTransform) -> tuple[int, int, int, int, int, int]:
    """Arguments of ``preprocess``: height, width, y0, x0, side, size."""
    return t.frame_height, t.frame_width, t.y0, t.x0, t.side, t.size
