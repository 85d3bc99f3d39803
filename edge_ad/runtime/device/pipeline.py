"""A frame from images to masks on the GPU: streams joined by events, CUDA graphs over all that does not vary.

Three streams. The front (``front.py``) makes a frame's cloud. The points stream cuts a part's sample, does the point
operations and runs the point encoder; the colour stream runs the colour encoder meanwhile, waits for the points and
goes on to tables, distances, map and mask. Kernels take the number of valid pixels from the device, so that the same
graphs serve every frame. Parts are queued in turn into *slots*; with two, the next frame's points are queued, and run,
while this frame's networks do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Sample
from edge_ad.runtime.device.anomaly_map import MapStage
from edge_ad.runtime.device.answer import FrameTicket, Ticket
from edge_ad.runtime.device.api import Driver, Stream
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.encoders import Encoders
from edge_ad.runtime.device.frame import FrameSlot, Lease
from edge_ad.runtime.device.front import FrontEnd, Kept
from edge_ad.runtime.device.graphs import Graphs
from edge_ad.runtime.device.judge import JudgeStage
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.networks import Network
from edge_ad.runtime.device.options import Cut, DeviceOptions
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.score import TEXT, FusedScore, Score, Taps
from edge_ad.runtime.device.score_plan import PlanScore
from edge_ad.runtime.device.sizes import sizes_of
from edge_ad.runtime.device.slot import Slot, window
from edge_ad.runtime.device.stride import StrideStage
from edge_ad.runtime.device.weights import read_weights
from edge_ad.runtime.kernels.launch import bicubic_table, compact_launch, preprocess_launch
from edge_ad.runtime.limits import Limits


class DevicePipeline:
    """All of a model on one GPU. Every call happens inside ``driver.current()``; one thread at a time submits.

    Parameters
    ----------
    networks : the four plans by name. images : cubins by source name. limits : of every class, in order.
    """

    def __init__(
        self,
        bundle: Bundle,
        driver: Driver,
        networks: Mapping[str, Network],
        images: Mapping[str, bytes],
        limits: Sequence[Limits],
        options: DeviceOptions | None = None,
    ) -> None:
        o = self.options = options or DeviceOptions()
        self.driver = driver
        s = self._s = sizes_of(bundle)
        preset, self._preset = bundle.preset, bundle.preset
        self.kernels = KernelSet(driver, images)
        self.front = FrontEnd(driver, self.kernels, driver.stream())
        self._arena = Arena(driver)
        self._points_stream, stream = driver.stream(), driver.stream()
        self.colour_stream = stream
        whole_text = preset.fusion.beta > 0
        self.has_text = any(t.name == TEXT[0] for t in networks["score"].outputs)
        self.anchor_from_means = self.has_text and not whole_text
        fused = o.score == "fused"
        self.terms = ("rgb", "3d", *(TEXT if self.has_text and (whole_text or not fused) else ()))
        self._points = PointBranch(self.kernels, self._arena, s, preset.points, bundle.points_scale_m)
        self._points.prepare(self._arena, stream)
        self._encoders = Encoders(networks, s, self._points)
        self._stride = None
        if s.score_stride > 1:
            self._stride = StrideStage(self.kernels, self._arena, s, self._points, stream)
        taps = Taps(self._arena, s, stream)
        self._score: Score
        rows = s.pixels
        if fused:
            weights, by_class = read_weights(bundle), self._encoders.by_class
            self._score = FusedScore(weights, self.kernels, self._arena, s, taps, o.half, whole_text, by_class, stream)
        else:
            self._score = plan = PlanScore(
                networks["score"], driver, self.kernels, self._arena, s, taps, stream, whole_text
            )
            rows = -(-s.pixels // plan.rows) * plan.rows
        self._map = MapStage(
            driver, self.kernels, self._arena, s, taps, preset.fusion, bundle.balance, self.terms, self._stride, stream
        )
        self._judge = JudgeStage(self.kernels, self._arena, s, preset, limits, stream)
        self._statistics = self._arena.constant(np.array([*preset.rgb.mean, *preset.rgb.std], np.float32), stream)
        # Windows differ from part to part by a few pixels.
        self._tables = Kept(driver, self._points_stream, most=64)
        self._slots = [Slot(driver, s, o.half and fused, rows) for _ in range(o.slots)]
        self._free = deque(self._slots)
        self._flying: deque[Ticket] = deque()
        self._lock = threading.Lock()
        self._graphs = Graphs(driver, o.graphs)

    @property
    def why_no_graphs(self) -> str:
        """Why no CUDA graphs are recorded; empty where they are."""
        return self._graphs.why_not

    @property
    def nbytes(self) -> int:
        """Device memory that the pipeline holds, without the plans' own."""
        slots = sum(slot.nbytes for slot in self._slots)
        return self._arena.nbytes + slots + self.front.pool.nbytes + self._judge.nbytes

    def submit(self, part: Sample | Cut, count: int | None, class_index: int | None) -> Ticket:
        """Queue one part.

        Parameters
        ----------
        count : its valid pixels, where the host knows them. class_index : None lets the device choose (``auto``).
        """
        slot = self._take()
        try:
            return self._submit(slot, part, count, class_index)
        except BaseException:
            self.driver.synchronize(self._points_stream)
            self.driver.synchronize(self.colour_stream)
            self._free.append(slot)
            raise

    def finish(self, frame: Lease) -> FrameTicket:
        """Queue what follows the last part of a frame: its areas, and the copies to the host."""
        stream = self.colour_stream
        self.driver.wait(stream, frame.slot.ready)  # where no part was queued
        self.driver.record(frame.slot.joined, stream)
        self._judge.finish(frame.slot, stream)
        self._release(frame.slot)
        return FrameTicket(self, frame)

    def _release(self, frame: FrameSlot) -> None:
        """What is queued by now is the last that uses a frame, as far as is known."""
        self.driver.record(frame.done, self.colour_stream)
        if frame.done not in frame.used:
            frame.used.append(frame.done)

    def _take(self) -> Slot:
        """A free slot; when there is none, the oldest part in flight is waited for and its answer kept."""
        while True:
            with self._lock:
                if self._free:
                    return self._free.popleft()
                oldest = self._flying[0]
            try:
                oldest.result()
            except (EdgeAdError, InvalidFrame):
                pass  # whoever holds the ticket is told

    def land(self, ticket: Ticket, slot: Slot) -> None:
        """A part's answer was read: its slot is free."""
        with self._lock:
            self._flying.remove(ticket)
            self._free.append(slot)

    def _submit(self, slot: Slot, part: Sample | Cut, count: int | None, class_index: int | None) -> Ticket:
        d, auto, number = self.driver, class_index is None, self._slots.index(slot)
        points, colour = self._points_stream, self.colour_stream

        def static(name: str, stream: Stream, work: Callable[[Slot, Stream], None]) -> None:
            self._graphs.run(number, name, auto, stream, lambda: work(slot, stream))

        slot.put_class(-1 if class_index is None else class_index)
        self._mark(slot, "points begin", points)
        slot.report_in.send(points)
        slot.plan_in.send(points)
        if isinstance(part, Sample):
            for piece in slot.put_sample(part):
                piece.send(points)
        else:
            self._cut(slot, part, points)
        self.kernels.run("part_counts", compact_launch(self._s.size), points, slot.valid, slot.lost, self._s.size,
                         part.transform.side, self._s.stride, slot.report.counts)  # fmt: skip
        d.record(slot.cut, points)
        d.wait(colour, slot.cut)
        self._mark(slot, "rgb begin", colour)
        static("rgb", colour, self._encoders.rgb)
        self._mark(slot, "rgb end", colour)
        static("points", points, self._point_operations)
        self._mark(slot, "points end", points)
        static("point encoder", points, self._encoders.points)
        self._mark(slot, "point encoder end", points)
        d.record(slot.joined, points)
        d.wait(colour, slot.joined)
        self._mark(slot, "joined", colour)
        recordable = self._score.recordable
        static("tokens", colour, self._encoders.tables)
        if auto:
            if recordable:
                static("class", colour, self._score.choose)
            else:
                self._score.choose(slot, colour)
            if self._encoders.by_class:  # the tables so far are the first class's
                static("tokens of class", colour, self._encoders.tables)
        if recordable:
            static("score", colour, lambda of, stream: self._score.enqueue(of, stream, auto, None))
        else:
            self._score.enqueue(slot, colour, auto, count if self._stride is None else None)
        static("map", colour, self._map_and_mask)
        if isinstance(part, Cut):
            self._judge.join(slot, part.frame.slot, part.transform, colour)
            self._release(part.frame.slot)
        for out in (slot.out_map, slot.out_mask, slot.out_valid, slot.out_lost, slot.out_report):
            out.fetch(colour)
        if self.anchor_from_means:
            slot.out_means.fetch(colour)
        if self.options.distances:
            for name in self.terms:
                slot.out_distances[name].fetch(colour)
        self._mark(slot, "end", colour)
        d.record(slot.done, colour)
        ticket = Ticket(self, slot, self._preset)
        with self._lock:
            self._flying.append(ticket)
        return ticket

    def _point_operations(self, slot: Slot, stream: Stream) -> None:
        self._points.enqueue(slot, stream)
        if self._stride is not None:
            self._stride.select(slot, stream)

    def _map_and_mask(self, slot: Slot, stream: Stream) -> None:
        self._map.enqueue(slot, stream)
        self._judge.enqueue(slot, stream)

    def _cut(self, slot: Slot, part: Cut, stream: Stream) -> None:
        t, frame = part.transform, part.frame.slot
        self.driver.wait(stream, frame.ready)
        flags = frame.flags
        if part.flags is not None:
            given = slot.put_flags(part.flags)
            given.send(stream)
            flags = given.memory  # type: ignore[assignment]
        room, bounds, taps = self._bicubic(t.side, stream)
        self.kernels.run("preprocess", preprocess_launch(t.side, t.size), stream, frame.colour.memory, frame.xyz,
                         flags, *window(t), bounds, taps, room, self._statistics, slot.image, slot.cloud, slot.valid,
                         slot.lost)  # fmt: skip

    def _bicubic(self, side: int, stream: Stream) -> tuple:  # type: ignore[type-arg]
        """The resampling tables of a window's size."""

        def make(arena: Arena) -> tuple:  # type: ignore[type-arg]
            bounds, taps = bicubic_table(side, self._s.size)
            return int(taps.shape[1]), arena.constant(bounds, stream), arena.constant(taps, stream)

        return self._tables.get(side, make)

    def _mark(self, slot: Slot, name: str, stream: Stream) -> None:
        if self.options.timing:
            if name not in slot.marks:
                slot.marks[name] = self.driver.event(timing=True)
            self.driver.record(slot.marks[name], stream)

    def close(self) -> None:
        """Wait for the device and give all memory back."""
        with self.driver.current():
            self.driver.synchronize(self._points_stream)
            self.driver.synchronize(self.colour_stream)
            self._graphs.free()
            self._tables.free()
            self._judge.free()
            for slot in self._slots:
                slot.free()
            self.front.free()
            self._arena.free()
