"""Everything that touches the CUDA driver: finding the GPU, its primary context, memory, copies, a stream.

Finding a GPU needs the driver's library alone (``ctypes``), so that builds and error messages work without
PyCUDA. Memory and streams use PyCUDA (extra ``cuda``) in the device's **primary** context, the one that TensorRT
works in; PyCUDA's ``autoinit`` makes another, in which TensorRT's pointers are not valid.

The memory and stream half needs a GPU to run: without one its tests (marker ``gpu``) skip.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError, missing_package

_LIBRARIES = ("libcuda.so.1", "libcuda.so")


@dataclass(frozen=True)
class Device:
    """The first CUDA device: its name, compute capability (major, minor) and memory in bytes."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def library() -> Any:
    """The driver's library, or None."""
    for name in _LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def available_bytes() -> int:
    """Bytes of host memory that new programs may take; 0 where the kernel does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def find_device() -> Device | None:
    """The first CUDA device, or None where there is no driver or no GPU."""
    cuda = library()
    if cuda is None or cuda.cuInit(0) != 0:
        return None
    handle, major, minor, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(128)
    calls = (
        cuda.cuDeviceGet(ctypes.byref(handle), 0),
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, handle),  # COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle),  # COMPUTE_CAPABILITY_MINOR
        cuda.cuDeviceGetName(name, len(name), handle),
        cuda.cuDeviceTotalMem_v2(ctypes.byref(total), handle),
    )
    if any(calls):
        return None
    return Device(name.value.decode(errors="replace"), (major.value, minor.value), int(total.value))


def driver_version() -> int:
    """The newest CUDA version that the installed driver supports, e.g. 13000; 0 without a driver."""
    cuda, number = library(), ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return 0
    return number.value


def require_device(what: str) -> Device:
    """The first CUDA device.

    Raises
    ------
    EdgeAdError
        There is none: one line that starts with "no CUDA device" and says what needs it.
    """
    device = find_device()
    if device is None:
        raise EdgeAdError(f"no CUDA device: {what} an NVIDIA GPU", "", "use --backend onnxruntime here")
    return device


class Buffer:
    """Device memory that grows to the largest size asked for; only valid inside its context."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._allocation: Any = None
        self._size = 0

    def reserve(self, nbytes: int) -> int:
        """Device address of at least ``nbytes`` bytes (never 0: TensorRT refuses null even for empty tensors)."""
        nbytes = max(nbytes, 1)
        if nbytes > self._size:
            if self._allocation is not None:
                self._allocation.free()
                self._allocation, self._size = None, 0
            try:
                self._allocation = self._driver.mem_alloc(nbytes)
            except self._driver.MemoryError:
                free, total = self._driver.mem_get_info()
                raise EdgeAdError(
                    f"no GPU memory for {nbytes >> 20} MB ({free >> 20} of {total >> 20} MB are free)",
                    "",
                    "close other programs on the GPU or use a smaller preset",
                ) from None
            self._size = nbytes
        return int(self._allocation)

    def free(self) -> None:
        """Give the memory back."""
        if self._allocation is not None:
            self._allocation.free()
            self._allocation, self._size = None, 0


class PrimaryContext:
    """PyCUDA (``driver``) and the primary context of the first device, usable from any thread by ``with x.current():``.

    Parameters
    ----------
    what : what needs it, for the message.

    Raises
    ------
    EdgeAdError
        No CUDA device, or PyCUDA is not installed.
    """

    def __init__(self, what: str) -> None:
        self.device = require_device(what)
        try:
            import pycuda.driver as driver
        except ImportError:
            raise missing_package("pycuda", "cuda") from None
        self.driver: Any = driver
        driver.init()
        self._first: Any = driver.Device(0)
        self._context: Any = self._first.retain_primary_context()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current in this thread for the block."""
        self._context.push()
        try:
            yield
        finally:
            self.driver.Context.pop()

    def memory(self) -> tuple[int, int]:
        """Bytes (free, total) of the device. On a Jetson, whose GPU shares the board's memory, page cache that the
        kernel would give back counts as free."""
        free, total = self.driver.mem_get_info()
        if Path("/etc/nv_tegra_release").exists():
            free = max(free, available_bytes())
        return int(free), int(total)


class CudaContext(PrimaryContext):
    """The primary context and one stream."""

    def __init__(self) -> None:
        super().__init__("TensorRT engines run on")
        with self.current():
            self._stream: Any = self.driver.Stream()

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT and kernel launches take it."""
        return int(self._stream.handle)

    def buffer(self) -> Buffer:
        """A new, empty device buffer."""
        return Buffer(self.driver)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy of a C-contiguous array to the device; keep the array alive until :meth:`synchronize`."""
        if array.nbytes:
            self.driver.memcpy_htod_async(address, array, self._stream)

    def download(self, shape: tuple[int, ...], dtype: np.dtype[Any], address: int) -> NDArray[Any]:
        """Queue a copy from the device into a new array, filled after :meth:`synchronize`."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            self.driver.memcpy_dtoh_async(array, address, self._stream)
        return array

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        self._stream.synchronize()
