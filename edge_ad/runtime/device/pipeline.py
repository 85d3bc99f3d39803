"""One part from images to map on the GPU: two streams joined by events, CUDA graphs over all that does not vary.

The points stream cuts the sample, does the point operations and runs the point encoder; the colour stream runs the
colour encoder meanwhile, waits for the points and goes on to tables, distances and map. Kernels take the number of
valid pixels from the device, so that the same graphs serve every frame. Parts are queued in turn into *slots*; with
two, the next frame's points are queued, and run, while this frame's networks do.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Sample
from edge_ad.runtime.device.anomaly_map import MapStage
from edge_ad.runtime.device.api import Driver, Event, Graph, Memory, Stream
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.networks import Network, run
from edge_ad.runtime.device.options import STAGES, Cut, DeviceOptions, DeviceScore
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.score import TEXT, FusedScore, PlanScore, Score, Taps
from edge_ad.runtime.device.sizes import sizes_of
from edge_ad.runtime.device.slot import Slot, window
from edge_ad.runtime.device.weights import read_weights
from edge_ad.runtime.kernels.launch import bicubic_table, preprocess_launch

log = logging.getLogger(__name__)


class Ticket:
    """A part in flight. :meth:`result` waits for it; asked again it answers the same."""

    def __init__(self, pipeline: DevicePipeline, slot: Slot, count: int) -> None:
        self._pipeline, self._slot, self._count = pipeline, slot, count
        self._lock = threading.Lock()
        self._answer: DeviceScore | EdgeAdError | InvalidFrame | None = None

    def result(self) -> DeviceScore:
        """Wait for the device and read the answer.

        Raises
        ------
        InvalidFrame
            All valid points coincide, and the preset divides by their extent.
        EdgeAdError
            A value left FP16's range.
        """
        with self._lock:
            if self._answer is None:
                self._answer = self._pipeline._collect(self, self._slot, self._count)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class DevicePipeline:
    """All of a model on one GPU. Every call happens inside ``driver.current()``; one thread at a time submits.

    Parameters
    ----------
    networks : the four plans by name. images : cubins by source name.
    """

    def __init__(
        self,
        bundle: Bundle,
        driver: Driver,
        networks: Mapping[str, Network],
        images: Mapping[str, bytes],
        options: DeviceOptions | None = None,
    ) -> None:
        o = self.options = options or DeviceOptions()
        self._driver, self._networks, self._bundle = driver, networks, bundle
        s = self._s = sizes_of(bundle)
        self.kernels = KernelSet(driver, images)
        self._arena = Arena(driver)
        self._points_stream, self._colour_stream = driver.stream(), driver.stream()
        preset, stream = bundle.preset, self._colour_stream
        self.has_text = any(t.name == TEXT[0] for t in networks["score"].outputs)
        self._anchor_from_means = self.has_text and not preset.fusion.beta > 0
        self._points = PointBranch(self.kernels, self._arena, s, preset.points, bundle.points_scale_m)
        self._points.prepare(self._arena, stream)
        taps = Taps(self._arena, s, stream)
        self._score: Score
        rows = s.pixels
        if o.score == "fused":
            self._score = FusedScore(
                read_weights(bundle), self.kernels, self._arena, s, taps, o.half, preset.fusion.beta > 0, stream
            )
        else:
            whole = preset.fusion.beta > 0
            self._score = plan = PlanScore(networks["score"], self.kernels, self._arena, s, taps, stream, whole)
            rows = -(-s.pixels // plan.rows) * plan.rows
        self._map = MapStage(
            driver, self.kernels, self._arena, s, taps, preset.fusion, bundle.balance, self.has_text, stream
        )
        self._statistics = self._arena.constant(np.array([*preset.rgb.mean, *preset.rgb.std], np.float32), stream)
        self._tables: dict[int, tuple[int, tuple]] = {}  # type: ignore[type-arg]
        self._slots = [Slot(driver, s, o.half and o.score == "fused", s.classes, rows) for _ in range(o.slots)]
        self._free = deque(self._slots)
        self._flying: deque[Ticket] = deque()
        self._graphs: dict[tuple[int, str, bool], Graph] = {}
        self._warm: set[tuple[str, bool]] = set()
        self._record = o.graphs
        self._lock = threading.Lock()
        self.why_no_graphs = "" if o.graphs else "switched off"

    @property
    def nbytes(self) -> int:
        """Device memory that the pipeline holds, without the plans' own."""
        return self._arena.nbytes + sum(slot.nbytes for slot in self._slots)

    def submit(self, part: Sample | Cut, count: int, class_index: int | None) -> Ticket:
        """Queue one part.

        Parameters
        ----------
        count : its valid pixels. class_index : None lets the device choose (``auto``).
        """
        slot = self._take()
        try:
            return self._submit(slot, part, count, class_index)
        except BaseException:
            self._driver.synchronize(self._points_stream)
            self._driver.synchronize(self._colour_stream)
            self._free.append(slot)
            raise

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

    def _submit(self, slot: Slot, part: Sample | Cut, count: int, class_index: int | None) -> Ticket:
        d, auto = self._driver, class_index is None
        points, colour = self._points_stream, self._colour_stream
        slot.put_class(-1 if class_index is None else class_index)
        self._mark(slot, "points begin", points)
        slot.report_in.send(points)
        slot.plan_in.send(points)
        if isinstance(part, Sample):
            slot.put_sample(part)
            for piece in (slot.sample_image, slot.sample_cloud, slot.sample_valid):
                piece.send(points)
        else:
            self._cut(slot, part, points)
        d.record(slot.cut, points)
        d.wait(colour, slot.cut)
        self._mark(slot, "rgb begin", colour)
        self._static(slot, "rgb", auto, colour, lambda: self._rgb(slot, colour))
        self._mark(slot, "rgb end", colour)
        self._static(slot, "points", auto, points, lambda: self._points.enqueue(slot, points))
        self._mark(slot, "points end", points)
        self._static(slot, "point encoder", auto, points, lambda: self._point_encoder(slot, points))
        self._mark(slot, "point encoder end", points)
        d.record(slot.joined, points)
        d.wait(colour, slot.joined)
        self._mark(slot, "joined", colour)
        self._static(slot, "tokens", auto, colour, lambda: self._tokens(slot, colour))
        if self._score.recordable:
            self._static(slot, "score", auto, colour, lambda: self._score.enqueue(slot, colour, auto, count))
        else:
            self._score.enqueue(slot, colour, auto, count)
        self._static(slot, "map", auto, colour, lambda: self._map.enqueue(slot, colour))
        slot.out_map.fetch(colour)
        slot.out_report.fetch(colour)
        if self._anchor_from_means:
            slot.out_means.fetch(colour)
        if self.options.distances:
            for name in self._terms():
                slot.out_distances[name].fetch(colour)
        self._mark(slot, "end", colour)
        d.record(slot.done, colour)
        ticket = Ticket(self, slot, count)
        with self._lock:
            self._flying.append(ticket)
        return ticket

    def _terms(self) -> tuple[str, ...]:
        plan = self.options.score == "plan"
        return ("rgb", "3d", *(TEXT if self.has_text and (plan or not self._anchor_from_means) else ()))

    def _static(self, slot: Slot, name: str, auto: bool, stream: Stream, work: Callable[[], None]) -> None:
        """Queue work that is the same for every frame: at first as it is, from the second time on as a CUDA graph."""
        key = (self._slots.index(slot), name, auto)
        graph = self._graphs.get(key)
        if graph is None and self._record and (name, auto) in self._warm:
            try:
                graph = self._graphs[key] = self._driver.record_graph(stream, work)
            except EdgeAdError as e:  # slower, not wrong: said once, and in `edge-ad profile`
                self._record, self.why_no_graphs = False, str(e)
                log.warning("no CUDA graphs: %s", e)
        if graph is not None:
            graph.launch(stream)
        else:
            work()
            self._warm.add((name, auto))

    def _cut(self, slot: Slot, part: Cut, stream: Stream) -> None:
        t, frame = part.transform, slot.put_frame(self._driver, part.colour, part.xyz, part.foreground)
        for piece in (frame.colour, frame.xyz, frame.flags):
            piece.send(stream)
        room, tables = self._bicubic(t.side, stream)
        self.kernels.run("preprocess", preprocess_launch(t.side, t.size), stream, frame.colour.memory,
                         frame.xyz.memory, frame.flags.memory, *window(t), *tables, room, self._statistics, slot.image,
                         slot.cloud, slot.valid, slot.lost)  # fmt: skip

    def _bicubic(self, side: int, stream: Stream) -> tuple[int, tuple]:  # type: ignore[type-arg]
        """The resampling tables of a window's size; the last few are kept on the device."""
        if side not in self._tables:
            if len(self._tables) >= 64:
                # Sizes of parts vary by pixels; what is queued may still read the oldest tables.
                self._driver.synchronize(stream)
                for memory in self._tables.pop(next(iter(self._tables)))[1]:
                    memory.free()
            bounds, taps = bicubic_table(side, self._s.size)
            own = Arena(self._driver)
            self._tables[side] = int(taps.shape[1]), (own.constant(bounds, stream), own.constant(taps, stream))
        return self._tables[side]

    def _rgb(self, slot: Slot, stream: Stream) -> None:
        s = self._s
        run(
            self._networks["rgb"],
            {"image": ((1, 3, s.size, s.size), slot.image)},
            {"rgb_tokens": ((s.rgb_tokens, s.dim_rgb), slot.rgb_tokens)},
            stream,
        )

    def _point_encoder(self, slot: Slot, stream: Stream) -> None:
        s, p = self._s, self._points
        run(
            self._networks["points"],
            {"groups": ((1, s.groups, s.group_size, 3), p.groups), "centers": ((1, s.groups, 3), p.centers)},
            {"point_tokens": ((s.groups, s.dim_points), p.tokens)},
            stream,
        )
        p.pool(slot, stream)

    def _tokens(self, slot: Slot, stream: Stream) -> None:
        s = self._s
        levels: dict[str, tuple[tuple[int, ...], Memory]] = {}
        if s.levels:
            levels = {
                "rgb_level": ((s.rgb_tokens,), slot.rgb_level),
                "point_level": ((s.groups,), slot.point_level),
            }
        run(
            self._networks["tokens"],
            {
                "rgb_tokens": ((s.rgb_tokens, s.dim_rgb), slot.rgb_tokens),
                "point_tokens": ((s.groups, s.dim_points), slot.pooled),
            },
            {
                "rgb_table": ((s.rgb_tokens, s.rgb_width), slot.rgb_table),
                "point_table": ((s.groups, s.point_width), slot.point_table),
                **levels,
            },
            stream,
        )

    def _mark(self, slot: Slot, name: str, stream: Stream) -> None:
        if self.options.timing:
            event: Event = slot.marks.setdefault(name, self._driver.event(timing=True))
            self._driver.record(event, stream)

    def _collect(self, ticket: Ticket, slot: Slot, count: int) -> DeviceScore | EdgeAdError | InvalidFrame:
        d = self._driver
        with d.current():
            d.synchronize(slot.done)
            report = slot.out_report.read()
            class_index = int(report[2])
            anchor = float(report[:2].view(np.float64)[0]) if self.has_text else float("nan")
            if self._anchor_from_means:
                anchor = float(slot.out_means.read()[class_index])
            times = {}
            if self.options.timing:
                times = {n: d.elapsed_ms(slot.marks[a], slot.marks[b]) for n, a, b in STAGES}
            distances = {}
            if self.options.distances:
                distances = {name: slot.out_distances[name].read()[:count] for name in self._terms()}
            answer: DeviceScore | EdgeAdError | InvalidFrame = DeviceScore(
                slot.out_map.read(), class_index, anchor, distances, times
            )
        if report[11:12].view(np.float32)[0] == 0:
            answer = InvalidFrame("all valid points coincide", "a part with some extent")
        elif report[3]:
            answer = EdgeAdError(
                f"{int(report[3])} rows of features left the range of FP16",
                "magnitudes below 65504",
                "use fp32 storage",
            )
        with self._lock:
            self._flying.remove(ticket)
            self._free.append(slot)
        return answer

    def close(self) -> None:
        """Wait for the device and give all memory back."""
        with self._driver.current():
            self._driver.synchronize(self._points_stream)
            self._driver.synchronize(self._colour_stream)
            for graph in self._graphs.values():
                graph.free()
            self._graphs.clear()
            for _, tables in self._tables.values():
                for memory in tables:
                    memory.free()
            for slot in self._slots:
                slot.free()
            self._arena.free()
