"""Device and page-locked memory of the pipeline, in arenas that are freed as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.runtime.device.api import Driver, HostMemory, Memory, Stream, host_view


class View:
    """Part of an allocation; kernels and TensorRT take it as memory."""

    def __init__(self, memory: Memory, offset: int, nbytes: int) -> None:
        self.address, self.nbytes = memory.address + offset, nbytes

    def free(self) -> None:
        """Nothing: the allocation is freed as a whole."""


def size_of(shape: tuple[int, ...], dtype: Any) -> int:
    """Bytes of an array."""
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


class Arena:
    """Allocations that live together. ``nbytes``: of device memory so far."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.nbytes = driver, 0
        self._held: list[Memory | HostMemory] = []

    def device(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Memory:
        """Device memory for an array."""
        memory = self.driver.allocate(size_of(shape, dtype))
        self.nbytes += memory.nbytes
        self._held.append(memory)
        return memory

    def pinned(self, shape: tuple[int, ...], dtype: Any = np.float32, mapped: bool = False) -> HostMemory:
        """Page-locked host memory for an array."""
        memory = self.driver.allocate_host(size_of(shape, dtype), mapped)
        self._held.append(memory)
        return memory

    def constant(self, array: NDArray[Any], stream: Stream) -> Memory:
        """Device memory that holds an array from now on."""
        array = np.ascontiguousarray(array)
        memory = self.device(array.shape, array.dtype)
        staging = self.driver.allocate_host(array.nbytes)
        staging.array[: array.nbytes] = array.reshape(-1).view(np.uint8)
        self.driver.upload(memory, staging, array.nbytes, stream)
        self.driver.synchronize(stream)
        staging.free()
        return memory

    def free(self) -> None:
        """Give all of it back."""
        while self._held:
            self._held.pop().free()


class Input:
    """An array that the host writes and kernels read.

    On a discrete GPU it is page-locked memory, copied to the device by :meth:`send`; on an integrated one the kernels
    read the host's memory itself (zero copy) and nothing is sent.
    """

    def __init__(self, arena: Arena, shape: tuple[int, ...], dtype: Any, *, device: Memory | None = None) -> None:
        self._driver, self.shape, self.dtype = arena.driver, shape, np.dtype(dtype)
        self._zero_copy = arena.driver.integrated and device is None
        self._host = arena.pinned(shape, dtype, mapped=self._zero_copy)
        self.memory: Memory | HostMemory = self._host if self._zero_copy else device or arena.device(shape, dtype)

    @property
    def array(self) -> NDArray[Any]:
        """What the host writes; only while nothing that is queued reads it."""
        return host_view(self._host, self.shape, self.dtype)

    def send(self, stream: Stream) -> None:
        """Queue the copy to the device, where one is needed."""
        if not self._zero_copy:
            self._driver.upload(self.memory, self._host, size_of(self.shape, self.dtype), stream)


class Output:
    """Device memory that the host reads after :meth:`fetch` and a synchronisation."""

    def __init__(self, arena: Arena, memory: Memory, shape: tuple[int, ...], dtype: Any) -> None:
        self._driver, self.memory, self.shape, self.dtype = arena.driver, memory, shape, np.dtype(dtype)
        self._host = arena.pinned(shape, dtype)

    def fetch(self, stream: Stream) -> None:
        """Queue the copy to the host."""
        self._driver.download(self._host, self.memory, size_of(self.shape, self.dtype), stream)

    def read(self) -> NDArray[Any]:
        """A copy of what was fetched."""
        return host_view(self._host, self.shape, self.dtype).copy()
