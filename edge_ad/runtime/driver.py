"""The one file through which the device pipeline touches the CUDA driver: PyCUDA, and ``ctypes`` for CUDA graphs.

PyCUDA works in the device's **primary** context, the one that TensorRT works in (its ``autoinit`` would make another,
in which TensorRT's pointers mean nothing). It has no calls for CUDA graphs; those go to the driver's library directly.
Implements :class:`edge_ad.runtime.device.api.Driver`; exchanging the binding means replacing this file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.runtime.cuda import PrimaryContext, library
from edge_ad.runtime.device.api import Argument

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on allocating
_PLAIN_SHARED = 48 << 10  # more dynamic shared memory than this has to be asked for


class DeviceMemory:
    """Device memory; see :class:`edge_ad.runtime.device.api.Memory`."""

    def __init__(self, driver: PyCudaDriver, nbytes: int) -> None:
        self.nbytes = max(1, nbytes)
        try:
            self._allocation: Any = driver.cuda.mem_alloc(self.nbytes)
        except driver.cuda.MemoryError:
            free, total = driver.memory()
            raise EdgeAdError(
                f"no GPU memory for {self.nbytes >> 20} MB ({free >> 20} of {total >> 20} MB are free)",
                "",
                "close other programs on the GPU or use a smaller preset",
            ) from None
        self.address = int(self._allocation)

    def free(self) -> None:
        """Give it back."""
        if self._allocation is not None:
            self._allocation.free()
            self._allocation, self.address = None, 0


class PinnedMemory:
    """Page-locked host memory; see :class:`edge_ad.runtime.device.api.HostMemory`."""

    def __init__(self, driver: PyCudaDriver, nbytes: int, mapped: bool) -> None:
        self.nbytes = max(1, nbytes)
        flags = driver.cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        try:
            self.array: NDArray[np.uint8] = driver.cuda.pagelocked_empty((self.nbytes,), np.uint8, mem_flags=flags)
        except driver.cuda.MemoryError:
            raise EdgeAdError(f"no page-locked host memory for {self.nbytes >> 20} MB", "", "close programs") from None
        self._owner: Any = self.array.base
        self.address = int(self._owner.get_device_pointer()) if mapped else 0

    def free(self) -> None:
        """Give it back."""
        if self._owner is not None:
            self.array = np.empty(0, np.uint8)
            self._owner.free()
            self._owner, self.address = None, 0


class _Stream:
    def __init__(self, stream: Any) -> None:
        self.stream, self.handle = stream, int(stream.handle)


class _Function:
    def __init__(self, function: Any, name: str) -> None:
        self.function, self.name = function, name
        self.format, self.shared = "", _PLAIN_SHARED


class RecordedGraph:
    """An executable CUDA graph."""

    def __init__(self, library: Any, executable: ctypes.c_void_p) -> None:
        self._library, self._executable = library, executable

    def launch(self, stream: Any) -> None:
        """Queue it on a stream."""
        _call(self._library.cuGraphLaunch, self._executable, ctypes.c_void_p(stream.handle))

    def free(self) -> None:
        """Destroy it."""
        if self._executable:
            _call(self._library.cuGraphExecDestroy, self._executable)
            self._executable = ctypes.c_void_p()


def _call(function: Any, *arguments: Any) -> None:
    """Call the driver; what it answers is checked."""
    code = function(*arguments)
    if code != 0:
        raise EdgeAdError(f"the CUDA driver's {function.__name__} failed with error {code}")


class PyCudaDriver(PrimaryContext):
    """The first CUDA device through PyCUDA.

    Raises
    ------
    EdgeAdError
        No CUDA device, or PyCUDA is not installed; one line each.
    """

    def __init__(self) -> None:
        super().__init__("the device pipeline needs")
        self.cuda = self.driver
        self.name, self.capability = self.device.name, self.device.compute_capability
        self.integrated = bool(self._first.get_attribute(self.cuda.device_attribute.INTEGRATED))
        self._modules: list[Any] = []

    def facts(self) -> tuple[int, float, float]:
        """Multiprocessors, their clock in GHz, and the memory's peak in GB/s, as the driver says them (0: not said)."""
        which, ask = self.cuda.device_attribute, self._first.get_attribute
        memory = 2.0 * ask(which.MEMORY_CLOCK_RATE) * 1e3 * ask(which.GLOBAL_MEMORY_BUS_WIDTH) / 8 / 1e9
        return int(ask(which.MULTIPROCESSOR_COUNT)), ask(which.CLOCK_RATE) * 1e3 / 1e9, memory

    def allocate(self, nbytes: int) -> DeviceMemory:
        """Device memory."""
        return DeviceMemory(self, nbytes)

    def allocate_host(self, nbytes: int, mapped: bool = False) -> PinnedMemory:
        """Page-locked host memory."""
        return PinnedMemory(self, nbytes, mapped)

    def stream(self) -> _Stream:
        """A new stream, not synchronised with the default one."""
        return _Stream(self.cuda.Stream(1))  # CU_STREAM_NON_BLOCKING

    def event(self, timing: bool = False) -> Any:
        """A new event."""
        flags = self.cuda.event_flags
        return self.cuda.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING)

    def record(self, event: Any, stream: Any) -> None:
        """Record an event on a stream."""
        event.record(stream.stream)

    def wait(self, stream: Any, event: Any) -> None:
        """Let a stream wait for an event."""
        stream.stream.wait_for_event(event)

    def synchronize(self, what: Any) -> None:
        """Block until an event happened or a stream is empty."""
        (what.stream if isinstance(what, _Stream) else what).synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events."""
        return float(end.time_since(start))

    def upload(self, target: Any, source: Any, nbytes: int, stream: Any) -> None:
        """Queue a copy to the device."""
        self.cuda.memcpy_htod_async(target.address, source.array[:nbytes], stream.stream)

    def download(self, target: Any, source: Any, nbytes: int, stream: Any) -> None:
        """Queue a copy to the host."""
        self.cuda.memcpy_dtoh_async(target.array[:nbytes], source.address, stream.stream)

    def zero(self, target: Any, nbytes: int, stream: Any) -> None:
        """Queue zeros."""
        self.cuda.memset_d8_async(target.address, 0, nbytes, stream.stream)

    def load(self, image: bytes) -> Callable[[str], _Function]:
        """Load a cubin."""
        try:
            module = self.cuda.module_from_buffer(image)
        except (self.cuda.Error, RuntimeError) as e:
            sm = "".join(str(n) for n in self.capability)
            raise EdgeAdError(
                f"a kernel cannot be loaded ({e})", f"a cubin for sm_{sm}", "run edge-ad build-engine on this device"
            ) from None
        self._modules.append(module)  # its functions die with it

        def function(name: str) -> _Function:
            try:
                return _Function(module.get_function(name), name)
            except (self.cuda.Error, RuntimeError):
                raise EdgeAdError(
                    f"a loaded kernel file has no kernel '{name}'", "", "run edge-ad build-engine again"
                ) from None

        return function

    def launch(
        self,
        function: Any,
        grid: tuple[int, int],
        block: int,
        arguments: Sequence[Argument],
        stream: Any,
        shared: int = 0,
    ) -> None:
        """Queue a kernel."""
        kinds, values = [], []
        for argument in arguments:
            kind, value = _argument(argument)
            kinds.append(kind)
            values.append(value)
        form = "".join(kinds)
        if function.format != form:
            function.function.prepare(list(form))
            function.format = form
        if shared > function.shared:
            attribute = self.cuda.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            function.function.set_attribute(attribute, shared)
            function.shared = shared
        try:
            function.function.prepared_async_call((*grid, 1), (block, 1, 1), stream.stream, *values, shared_size=shared)
        except self.cuda.Error as e:
            raise EdgeAdError(f"the kernel {function.name} could not be launched ({e})") from None

    def record_graph(self, stream: Any, work: Callable[[], None]) -> RecordedGraph:
        """Record what ``work`` queues on the stream as one CUDA graph.

        Raises
        ------
        EdgeAdError
            Something in it cannot be recorded; the stream is usable again.
        """
        driver, handle = library(), ctypes.c_void_p(stream.handle)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        _call(driver.cuStreamBeginCapture_v2, handle, ctypes.c_int(_THREAD_LOCAL))
        failed: BaseException | None = None
        try:
            work()
        except BaseException as e:
            failed = e
        code = driver.cuStreamEndCapture(handle, ctypes.byref(graph))  # always: it ends the recording
        if failed is not None or code != 0:
            if graph:
                driver.cuGraphDestroy(graph)
            if failed is not None and not isinstance(failed, EdgeAdError | self.cuda.Error):
                raise failed
            raise EdgeAdError(f"the work cannot be recorded as a CUDA graph ({failed or f'driver error {code}'})")
        try:
            _call(driver.cuGraphInstantiateWithFlags, ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        finally:
            driver.cuGraphDestroy(graph)
        return RecordedGraph(driver, executable)

    def close(self) -> None:
        """Drop the modules and the context's reference."""
        with self.current():
            self._modules.clear()
        self._context.detach()


def _argument(value: Argument) -> tuple[str, Any]:
    """Code of :mod:`struct` and value of one kernel argument."""
    if value is None:
        return "P", 0
    if isinstance(value, np.int64):
        return "q", int(value)
    if isinstance(value, np.float64):  # a float as well, so it is asked for first
        return "d", float(value)
    if isinstance(value, float):
        return "f", value
    if isinstance(value, int):
        return "i", value
    if value.address == 0:
        raise EdgeAdError("a kernel was given memory without a device address")
    return "P", value.address
