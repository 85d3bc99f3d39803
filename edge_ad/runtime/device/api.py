"""What the device pipeline needs of a CUDA driver, and nothing more.

:class:`edge_ad.runtime.driver.PyCudaDriver` is the one on a GPU. The tests bring one that executes the same kernels on
host memory and watches the order of streams and events; exchanging the binding means writing one more.

Work is queued on streams and returns at once. Memory is freed by :meth:`Memory.free` or with the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Memory(Protocol):
    """Device memory."""

    address: int
    nbytes: int

    def free(self) -> None:
        """Give it back; nothing that is queued may still use it."""


class HostMemory(Protocol):
    """Page-locked host memory. ``address`` is its device address where it was asked for as mapped, else 0."""

    array: NDArray[np.uint8]
    address: int
    nbytes: int

    def free(self) -> None:
        """Give it back; nothing that is queued may still use it."""


class Stream(Protocol):
    """A queue of work; ``handle`` is the driver's own, as TensorRT takes it."""

    handle: int


class Event(Protocol):
    """A point in a stream."""


class Function(Protocol):
    """A kernel of a loaded module."""

    name: str


class Graph(Protocol):
    """Work that was recorded once and is launched as one."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""

    def free(self) -> None:
        """Give it back."""


Argument = Memory | HostMemory | int | float | np.int64 | np.float64 | None
"""Memory (its address), int and float (32 bits), numpy.int64 and float64 (64 bits), None (a null pointer)."""


class Driver(Protocol):
    """One device and its primary context."""

    name: str
    capability: tuple[int, int]
    integrated: bool
    """Whether the GPU works in the host's memory (Jetson): then input is read where the host wrote it."""

    def current(self) -> AbstractContextManager[None]:
        """Make the context current in this thread; every other call happens inside."""

    def allocate(self, nbytes: int) -> Memory:
        """Device memory, at least one byte."""

    def allocate_host(self, nbytes: int, mapped: bool = False) -> HostMemory:
        """Page-locked host memory, with a device address if ``mapped``."""

    def memory(self) -> tuple[int, int]:
        """Bytes (free, total) of the device."""

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    def event(self, timing: bool = False) -> Event:
        """A new event; only those with ``timing`` can be subtracted."""

    def record(self, event: Event, stream: Stream) -> None:
        """The event happens when all that the stream holds by now is done."""

    def wait(self, stream: Stream, event: Event) -> None:
        """What is queued on the stream from now on waits for the event."""

    def synchronize(self, what: Event | Stream) -> None:
        """Block this thread until the event happened or the stream is empty."""

    def elapsed_ms(self, start: Event, end: Event) -> float:
        """Milliseconds between two events that happened."""

    def upload(self, target: Memory, source: HostMemory, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first ``nbytes`` to the device."""

    def download(self, target: HostMemory, source: Memory, nbytes: int, stream: Stream) -> None:
        """Queue a copy of the first ``nbytes`` to the host."""

    def zero(self, target: Memory, nbytes: int, stream: Stream) -> None:
        """Queue filling the first ``nbytes`` with zeros."""

    def load(self, image: bytes) -> Callable[[str], Function]:
        """Load a cubin; the answer gives its kernels by name."""

    def launch(
        self,
        function: Function,
        grid: tuple[int, int],
        block: int,
        arguments: Sequence[Argument],
        stream: Stream,
        shared: int = 0,
    ) -> None:
        """Queue a kernel: ``grid`` blocks of ``block`` threads with ``shared`` bytes of dynamic shared memory."""

    def record_graph(self, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what ``work`` queues on the stream; nothing of it runs. EdgeAdError where it cannot be recorded."""

    def close(self) -> None:
        """Give the context back. All memory goes with it."""


def host_view(memory: HostMemory, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """The start of page-locked memory as an array."""
    count = int(np.prod(shape, dtype=np.int64))
    return memory.array[: count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)
