"""A CUDA driver without a GPU: the same kernels through the block emulator on host memory, networks by ONNX Runtime.

Work runs at once, in the order in which it is queued; whether that order is guaranteed on a GPU is checked beside it.
Every stream, and the host, has a vector clock; every allocation remembers who wrote and who read it last. A read or a
write that no stream order, event or synchronisation puts after an earlier write (or, for a write, an earlier read) is
a :class:`Race`, and so is freeing memory that a stream may still use; using it afterwards is a :class:`UseAfterFree`.
Which memory a kernel writes is taken from its signature (pointers that are not const).
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError
from tests.emulator.emulate import emulate
from tests.runtime.device.memory import HOST, FakeHostMemory, FakeMemory, Race, UseAfterFree

Clock = dict[int, int]


class FakeStream:
    def __init__(self, handle: int) -> None:
        self.handle = handle


class FakeEvent:
    def __init__(self, timing: bool) -> None:
        self.timing = timing
        self.clock: Clock | None = None
        self.at = 0.0


class FakeFunction:
    def __init__(self, kernel: Any, name: str) -> None:
        self.kernel, self.name = kernel, name


class FakeGraph:
    """Recorded calls, done again at each launch."""

    def __init__(self, driver: EmulatedDriver, calls: list[tuple[int, Callable[[], None]]]) -> None:
        self._driver, self._calls, self.launches = driver, calls, 0

    def launch(self, stream: FakeStream) -> None:
        assert all(handle == stream.handle for handle, _ in self._calls), "a graph of another stream"
        self.launches += 1
        for _, call in self._calls:
            call()

    def free(self) -> None:
        self._calls = []


class EmulatedDriver:
    """integrated : act as a Jetson. schedule : order of the kernels' threads. unrecordable : no graphs."""

    name = "emulated device"
    capability = (8, 7)

    def __init__(self, integrated: bool = False, schedule: str = "forward", unrecordable: bool = False) -> None:
        self.integrated, self.schedule, self.unrecordable = integrated, schedule, unrecordable
        # 256-byte aligned, far apart, and never given out twice.
        self._addresses = itertools.count(1 << 40, 1 << 32)
        self._memory: list[FakeMemory] = []
        self._starts: list[int] = []
        self._clocks: dict[int, Clock] = {HOST: {HOST: 1}}
        self._recording: dict[int, list[tuple[int, Callable[[], None]]]] = {}  # by thread
        self._ticks = itertools.count(1)
        self._lock = threading.RLock()  # stages on threads use one driver
        self.depth = 0
        self.launched: list[str] = []
        self.graphs: list[FakeGraph] = []

    # Bookkeeping.

    def add(self, memory: FakeMemory) -> None:
        with self._lock:
            memory.address = next(self._addresses)
            self._memory.append(memory)
            self._starts.append(memory.address)

    def find(self, address: int) -> tuple[FakeMemory, int]:
        i = bisect.bisect_right(self._starts, address) - 1
        if i < 0 or address - self._starts[i] >= self._memory[i].nbytes:
            raise UseAfterFree(f"address {address:#x} belongs to no allocation")
        return self._memory[i], address - self._starts[i]

    def touch(self, memory: FakeMemory, who: int, writes: bool, what: str) -> None:
        """An access by a stream or the host, held against those before it."""
        with self._lock:
            self._touch(memory, who, writes, what)

    def _touch(self, memory: FakeMemory, who: int, writes: bool, what: str) -> None:
        if memory.freed:
            raise UseAfterFree(f"{what} uses {memory.name} after it was freed")
        clock = self._clocks[who]
        stream, at, by = memory.write
        if clock.get(stream, 0) < at:
            raise Race(f"{what} (stream {who}) uses what {by} (stream {stream}) writes, and nothing orders them")
        if writes:
            for reader, (when, name) in memory.reads.items():
                if clock.get(reader, 0) < when:
                    raise Race(f"{what} (stream {who}) overwrites what {name} (stream {reader}) reads")
            memory.write, memory.reads = (who, clock[who], what), {}
        else:
            memory.reads[who] = (clock[who], what)

    def do(self, stream: FakeStream, call: Callable[[], None]) -> None:
        """Queue a call: it happens after all that the host did and saw so far."""
        assert self.depth > 0, "no current context"
        calls = self._recording.get(threading.get_ident())
        if calls is not None:
            calls.append((stream.handle, call))
            return
        self._run(stream.handle, call)

    def _run(self, handle: int, call: Callable[[], None]) -> None:
        with self._lock:
            clock = self._clocks[handle]
            _merge(clock, self._clocks[HOST])
            clock[handle] = clock.get(handle, 0) + 1
            call()

    def _here(self) -> None:
        """What may not happen in a thread that records a graph."""
        assert self.depth > 0, "no current context"
        assert threading.get_ident() not in self._recording, "not while a graph is recorded"

    # The Driver protocol.

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._lock:
            self.depth += 1
        try:
            yield
        finally:
            with self._lock:
                self.depth -= 1

    def allocate(self, nbytes: int) -> FakeMemory:
        self._here()
        return FakeMemory(self, nbytes, f"device memory of {nbytes} bytes")

    def allocate_host(self, nbytes: int, mapped: bool = False) -> FakeHostMemory:
        self._here()
        return FakeHostMemory(self, nbytes, mapped)

    def memory(self) -> tuple[int, int]:
        return 4 << 30, 8 << 30

    def stream(self) -> FakeStream:
        handle = len(self._clocks)
        self._clocks[handle] = {}
        return FakeStream(handle)

    def event(self, timing: bool = False) -> FakeEvent:
        return FakeEvent(timing)

    def record(self, event: FakeEvent, stream: FakeStream) -> None:
        self._here()
        with self._lock:
            clock = self._clocks[stream.handle]
            _merge(clock, self._clocks[HOST])
            event.clock, event.at = dict(clock), float(next(self._ticks))

    def wait(self, stream: FakeStream, event: FakeEvent) -> None:
        assert event.clock is not None, "an event that was never recorded"
        with self._lock:
            _merge(self._clocks[stream.handle], event.clock)

    def synchronize(self, what: FakeEvent | FakeStream) -> None:
        self._here()
        with self._lock:
            clock = self._clocks[what.handle] if isinstance(what, FakeStream) else what.clock
            assert clock is not None, "an event that was never recorded"
            _merge(self._clocks[HOST], clock)
            self._clocks[HOST][HOST] += 1

    def elapsed_ms(self, start: FakeEvent, end: FakeEvent) -> float:
        assert start.timing and end.timing and start.clock is not None and end.clock is not None
        return end.at - start.at

    def upload(self, target: Any, source: FakeHostMemory, nbytes: int, stream: FakeStream) -> None:
        def call() -> None:
            memory, at = self.find(target.address)
            self.touch(source, stream.handle, False, "an upload")
            self.touch(memory, stream.handle, True, "an upload")
            assert at + nbytes <= memory.nbytes and nbytes <= source.nbytes
            memory.bytes[at : at + nbytes] = source.bytes[:nbytes]

        self.do(stream, call)

    def download(self, target: FakeHostMemory, source: Any, nbytes: int, stream: FakeStream) -> None:
        def call() -> None:
            memory, at = self.find(source.address)
            self.touch(memory, stream.handle, False, "a download")
            self.touch(target, stream.handle, True, "a download")
            assert at + nbytes <= memory.nbytes and nbytes <= target.nbytes
            target.bytes[:nbytes] = memory.bytes[at : at + nbytes]

        self.do(stream, call)

    def zero(self, target: Any, nbytes: int, stream: FakeStream) -> None:
        def call() -> None:
            memory, at = self.find(target.address)
            self.touch(memory, stream.handle, True, "zeroing")
            assert at + nbytes <= memory.nbytes
            memory.bytes[at : at + nbytes] = 0

        self.do(stream, call)

    def load(self, image: bytes) -> Callable[[str], FakeFunction]:
        self._here()
        module = emulate(image.decode())
        return lambda name: FakeFunction(getattr(module, name), name)

    def launch(
        self,
        function: FakeFunction,
        grid: tuple[int, int],
        block: int,
        arguments: Sequence[Any],
        stream: FakeStream,
        shared: int = 0,
    ) -> None:
        parameters = function.kernel.parameters
        assert len(parameters) == len(arguments), f"{function.name} takes {parameters}"
        assert shared <= 48 << 10, f"{function.name}: {shared} bytes of shared memory"

        def call() -> None:
            values = []
            for parameter, argument in zip(parameters, arguments):
                if not parameter.endswith("*"):
                    values.append(self._scalar(function.name, parameter, argument))
                    continue
                if argument is None:
                    values.append(None)
                    continue
                address = argument.address
                if isinstance(argument, FakeHostMemory):
                    assert argument.mapped, f"{function.name} is given host memory that is not mapped"
                memory, at = self.find(address)
                self.touch(memory, stream.handle, not parameter.startswith("const "), function.name)
                width = int(parameter.removeprefix("const ").rstrip("*")[1:])
                kind = parameter.removeprefix("const ")[0]
                room = (memory.nbytes - at) // width * width
                data = memory.bytes[at : at + room]
                values.append(data.view("u1" if kind == "V" else f"{kind}{width}"))
            self.launched.append(function.name)
            function.kernel.module.use(self.schedule, len(self.launched))
            function.kernel[grid, block, shared](*values)

        self.do(stream, call)

    @staticmethod
    def _scalar(name: str, parameter: str, value: Any) -> Any:
        """The width that the real driver would pack must be the parameter's."""
        packed = (
            "i8" if isinstance(value, np.int64) else "f8" if isinstance(value, np.float64)
            else "f4" if isinstance(value, float) else "i4" if isinstance(value, int) else type(value).__name__
        )  # fmt: skip
        assert packed == parameter, f"{name}: a {parameter} is given {value!r} ({packed})"
        return value

    def record_graph(self, stream: FakeStream, work: Callable[[], None]) -> FakeGraph:
        if self.unrecordable:
            raise EdgeAdError("the work cannot be recorded as a CUDA graph (driver error 900)")
        self._here()
        calls = self._recording[threading.get_ident()] = []
        try:
            work()
        finally:
            del self._recording[threading.get_ident()]
        graph = FakeGraph(self, [(h, self._replay(h, c)) for h, c in calls])
        self.graphs.append(graph)
        return graph

    def _replay(self, handle: int, call: Callable[[], None]) -> Callable[[], None]:
        return lambda: self._run(handle, call)

    def close(self) -> None:
        left = [m.name for m in self._memory if not m.freed]
        assert not left, f"{len(left)} allocations are left: {left[:5]}"


def _merge(into: Clock, other: Mapping[int, int]) -> None:
    for stream, at in other.items():
        if into.get(stream, 0) < at:
            into[stream] = at
