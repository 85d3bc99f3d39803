"""Parts and frames in flight, and what the host reads of them when they have landed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Region
from edge_ad.presets import Preset
from edge_ad.runtime.device.buffers import Arena, Output
from edge_ad.runtime.device.frame import Lease
from edge_ad.runtime.device.front import check_seen
from edge_ad.runtime.device.judge import read_regions
from edge_ad.runtime.device.options import FRAME_STAGES, STAGES, DeviceScore
from edge_ad.runtime.device.slot import Slot, Told
from edge_ad.runtime.finish import CameraView
from edge_ad.runtime.maps import find_regions
from edge_ad.runtime.parts import NOT_USABLE

if TYPE_CHECKING:
    from edge_ad.runtime.device.pipeline import DevicePipeline


class Ticket:
    """A part in flight. :meth:`result` waits for it; asked again it answers the same."""

    def __init__(self, pipeline: DevicePipeline, slot: Slot, preset: Preset) -> None:
        self._pipeline, self._slot, self._preset = pipeline, slot, preset
        self._lock = threading.Lock()
        self._answer: DeviceScore | EdgeAdError | InvalidFrame | None = None

    def result(self) -> DeviceScore:
        """Wait for the device and read the answer.

        Raises
        ------
        InvalidFrame
            Fewer valid pixels than ``limits.min_valid`` or than one group holds; all of them coincide, and the preset
            divides by their extent.
        EdgeAdError
            A value left FP16's range.
        """
        with self._lock:
            if self._answer is None:
                self._answer = self._collect()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def _collect(self) -> DeviceScore | EdgeAdError | InvalidFrame:
        pipeline, slot = self._pipeline, self._slot
        d, options = pipeline.driver, pipeline.options
        with d.current():
            d.synchronize(slot.done)
            told = Told.read(slot.out_report.read())
            answer: DeviceScore | EdgeAdError | InvalidFrame | None = self._refusal(told)
            if answer is None:
                anchor = told.anchor_mean if pipeline.has_text else float("nan")
                if pipeline.anchor_from_means:
                    anchor = float(slot.out_means.read()[told.class_index])
                times, distances = {}, {}
                if options.timing:
                    times = {n: d.elapsed_ms(slot.marks[a], slot.marks[b]) for n, a, b in STAGES}
                if options.distances:
                    distances = {n: slot.out_distances[n].read()[: told.valid] for n in pipeline.terms}
                answer = DeviceScore(
                    slot.out_map.read(),
                    slot.out_mask.read().astype(np.bool_),
                    slot.out_valid.read().astype(np.bool_),
                    slot.out_lost.read().astype(np.bool_),
                    told.class_index,
                    told.score,
                    anchor,
                    told.anomalous,
                    told.lost / max(1, told.either),
                    distances,
                    times,
                )
        pipeline.land(self, slot)
        return answer

    def _refusal(self, told: Told) -> EdgeAdError | InvalidFrame | None:
        """Why a part cannot be judged, in the order and words of ``runtime.point_input``."""
        p = self._preset
        group = f"at least {p.points.group_size}, the size of one group"
        if told.valid < p.limits.min_valid:
            return InvalidFrame(f"only {told.valid} valid pixels", f"at least {p.limits.min_valid}")
        if told.measured < p.points.group_size:
            return InvalidFrame(f"only {told.measured} valid points", group)
        if told.factor == 0:
            return InvalidFrame("all valid points coincide", "a part with some extent")
        if told.drawn < p.points.group_size:
            return InvalidFrame(f"only {told.drawn} valid points", group)
        if told.overflows:
            found = f"{told.overflows} rows of features left the range of FP16"
            return EdgeAdError(found, "magnitudes below 65504", "use fp32 storage")
        return None


class FrameTicket:
    """A frame in flight, all its parts queued."""

    def __init__(self, pipeline: DevicePipeline, frame: Lease) -> None:
        self._pipeline, self._frame = pipeline, frame

    def result(self) -> CameraView:
        """Wait for the device and read the frame's maps and areas.

        Raises
        ------
        InvalidFrame
            No pixel has depth, or none is usable; what the host did not wait for before.
        """
        pipeline, frame = self._pipeline, self._frame.slot
        with pipeline.driver.current():
            pipeline.driver.synchronize(frame.done)
            seen = frame.out_seen.read()
            check_seen(seen)
            if seen[1] == 0:
                raise InvalidFrame(*NOT_USABLE)
            image = frame.out_map.read()
            masks = [out.read().astype(np.bool_) for out in (frame.out_mask, frame.out_lost)]
            regions: tuple[Region, ...] = ()
            for mask, (kind, listed) in zip(masks, frame.areas.items()):
                found = read_regions(listed, kind)
                regions += find_regions(mask, image, self._cloud(), kind) if found is None else found
        return CameraView(image, masks[0], masks[1], regions)

    def times_ms(self) -> dict[str, float]:
        """Milliseconds between events on the device, after :meth:`result`; empty without ``timing``."""
        d, frame = self._pipeline.driver, self._frame.slot
        if not self._pipeline.options.timing:
            return {}
        with d.current():
            return {n: d.elapsed_ms(getattr(frame, a), getattr(frame, b)) for n, a, b in FRAME_STAGES}

    def _cloud(self) -> np.ndarray:  # type: ignore[type-arg]
        """The frame's cloud on the host: for more areas than the device lists.

        On the front's stream: no graph is ever recorded there, and another thread may record one on the others now.
        """
        pipeline, frame = self._pipeline, self._frame.slot
        arena, stream = Arena(pipeline.driver), pipeline.front.stream
        out = Output(arena, frame.xyz, (*frame.size, 3), np.float32)  # type: ignore[arg-type]
        out.fetch(stream)
        pipeline.driver.synchronize(stream)
        xyz = out.read()
        arena.free()
        return xyz
