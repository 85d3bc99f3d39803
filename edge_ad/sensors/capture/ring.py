"""Frames through shared memory: pixels are copied into a slot and out of it, everything else travels as plain JSON.

The memory has no name in the file system (``memfd_create``): it is handed over as a file descriptor, and the kernel
frees it when the last of the two processes is gone, however it died. Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad import frame as frames
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame

ALIGN = 64
_TYPE = "__type__"


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def arrays_of(frame: Frame) -> dict[str, NDArray[Any]]:
    """The frame's arrays by field name, C-contiguous."""
    given = {f.name: getattr(frame, f.name) for f in dataclasses.fields(frame)}
    return {name: np.ascontiguousarray(value) for name, value in given.items() if isinstance(value, np.ndarray)}


def slot_size(frame: Frame) -> int:
    """Bytes that a slot needs for this frame."""
    return sum(_aligned(array.nbytes) for array in arrays_of(frame).values())


def _plain(value: Any) -> Any:
    """A frame's field as JSON: small data classes of :mod:`edge_ad.frame` by their name, NumPy scalars as numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {_TYPE: type(value).__name__, **fields}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_rich(v) for v in value)
    if isinstance(value, dict):
        fields = {k: _rich(v) for k, v in value.items() if k != _TYPE}
        kind = getattr(frames, value[_TYPE], None) if _TYPE in value else None
        return kind(**fields) if dataclasses.is_dataclass(kind) and isinstance(kind, type) else fields
    return value


class Ring:
    """``slots`` places of ``slot_bytes`` bytes each in one anonymous shared mapping."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        self.slots, self.slot_bytes, self.fd = slots, slot_bytes, fd
        self._map = mmap.mmap(fd, slots * slot_bytes)

    @classmethod
    def create(cls, slots: int, slot_bytes: int) -> Ring:
        """A new ring; its ``fd`` is for the other process."""
        fd = os.memfd_create("edge-ad-ring", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, slots * slot_bytes)
            return cls(fd, slots, slot_bytes)
        except OSError as e:
            os.close(fd)
            wanted = slots * slot_bytes >> 20
            raise EdgeAdError(f"no shared memory for {wanted} MB: {e.strerror}", "", "free some memory") from None

    def write(self, slot: int, frame: Frame) -> dict[str, Any]:
        """Copy a frame into a slot; returns the JSON document that :meth:`read` needs.

        Raises ValueError for a frame that does not fit.
        """
        layout: list[list[Any]] = []
        at = slot * self.slot_bytes
        end = at + self.slot_bytes
        for name, array in arrays_of(frame).items():
            if at + array.nbytes > end:
                raise ValueError(f"a frame of {slot_size(frame)} bytes in a slot of {self.slot_bytes}")
            target = np.frombuffer(self._map, np.uint8, array.nbytes, at)
            target[:] = array.reshape(-1).view(np.uint8)
            layout.append([name, array.dtype.str, list(array.shape), at])
            at += _aligned(array.nbytes)
        taken = {entry[0] for entry in layout}
        rest = {f.name: _plain(getattr(frame, f.name)) for f in dataclasses.fields(frame) if f.name not in taken}
        return {"arrays": layout, "fields": rest}

    def read(self, document: dict[str, Any]) -> Frame:
        """The frame of a document, with arrays of its own."""
        fields = {name: _rich(value) for name, value in document["fields"].items()}
        for name, dtype, shape, at in document["arrays"]:
            kind = np.dtype(dtype)
            count = int(np.prod(shape, dtype=np.int64))
            fields[name] = np.frombuffer(self._map, kind, count, at).reshape(shape).copy()
        return Frame(**fields)

    def close(self) -> None:
        """Unmap, and close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        try:
            self._map.close()
        except BufferError:  # a view is still alive; the mapping goes with it
            pass
