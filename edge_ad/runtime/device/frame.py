"""The buffers of one camera frame on the device: its images and cloud, what its parts add up to, the areas found.

Slots are lent out frame by frame and come back when nothing refers to the frame any more; there are as many of them as
frames have been in flight at once.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_ad.frame import Frame
from edge_ad.runtime.device.api import Driver, Event, Memory, Stream
from edge_ad.runtime.device.buffers import Arena, Input, Output
from edge_ad.runtime.kernels.launch import MEASURES, REGION_FIELDS, UNITS

MOST_AREAS = 256
"""Areas that the device lists; a frame with more is measured by the host."""
SEEN = 4
"""Integers of a frame: pixels with depth, usable pixels, widest square met when depth was registered, (unused)."""


@dataclass(frozen=True)
class FrameKind:
    """What the buffers of a frame are made from. depth : (h, w) of the depth image, None for a cloud; whole : 16 bit
    units, else float32; registered : on a grid of its own."""

    height: int
    width: int
    depth: tuple[int, int] | None
    whole: bool
    registered: bool

    @staticmethod
    def of(frame: Frame) -> FrameKind:
        """Of a frame that :func:`edge_ad.runtime.frame_check.check_frame` let pass."""
        h, w = frame.shape
        if frame.xyz is not None or frame.depth is None:
            return FrameKind(h, w, None, False, False)
        whole = frame.depth.dtype == np.uint16
        own = frame.depth_intrinsics is not None
        return FrameKind(h, w, (frame.depth.shape[0], frame.depth.shape[1]), whole, own)


class AreaList:
    """Connected areas as the device lists them: rows of integers (regions.cu), what they measure, how many."""

    def __init__(self, arena: Arena) -> None:
        self.boxes = arena.device((MOST_AREAS, REGION_FIELDS), np.int32)
        self.measures = arena.device((MOST_AREAS, MEASURES), np.float64)
        self.count = arena.device((1,), np.int32)
        self.out_boxes = Output(arena, self.boxes, (MOST_AREAS, REGION_FIELDS), np.int32)
        self.out_measures = Output(arena, self.measures, (MOST_AREAS, MEASURES), np.float64)
        self.out_count = Output(arena, self.count, (1,), np.int32)

    def fetch(self, stream: Stream) -> None:
        """Queue the copies to the host."""
        for out in (self.out_boxes, self.out_measures, self.out_count):
            out.fetch(stream)


class FrameSlot:
    """Buffers of one frame. ready : its cloud and flags are there. done : nothing queued uses the slot any more.

    begun, made : around its cloud. joined, done : around its areas and the copies to the host.
    """

    def __init__(self, driver: Driver, kind: FrameKind) -> None:
        arena = self.arena = Arena(driver)
        self.kind = kind
        h, w = kind.height, kind.width
        n = self.pixels = h * w
        self.colour = Input(arena, (h, w, 3), np.uint8)
        self.depth: Input | None = None
        self.registered: Memory | None = None
        if kind.depth is None:
            self.given: Input | None = Input(arena, (h, w, 3), np.float32)
            self.xyz = self.given.memory
        else:
            self.given = None
            self.depth = Input(arena, kind.depth, np.uint16 if kind.whole else np.float32)
            self.xyz = arena.device((n, 3))
            if kind.registered:
                self.registered = arena.device((n,), np.uint32)
        self.flags = arena.device((n,), np.uint8)
        self.seen = arena.device((SEEN,), np.int32)
        self.map, self.mask, self.lost = arena.device((n,)), arena.device((n,), np.uint8), arena.device((n,), np.uint8)
        self.areas = {"anomaly": AreaList(arena), "lost-depth": AreaList(arena)}
        self.out_flags = Output(arena, self.flags, (h, w), np.uint8)
        self.out_seen = Output(arena, self.seen, (SEEN,), np.int32)
        self.out_map = Output(arena, self.map, (h, w), np.float32)
        self.out_mask = Output(arena, self.mask, (h, w), np.uint8)
        self.out_lost = Output(arena, self.lost, (h, w), np.uint8)
        self.ready = driver.event()
        self.begun, self.made, self.joined, self.done = (driver.event(timing=True) for _ in range(4))
        self.used: list[Event] = []  # what the host must wait for before it writes the next frame

    @property
    def depth_kind(self) -> int:
        """``kind`` of depth.cu."""
        return UNITS if self.kind.whole else UNITS + 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.kind.height, self.kind.width


class Lease:
    """A slot lent to one frame; it goes back to the pool with the last reference to this."""

    def __init__(self, pool: FramePool, slot: FrameSlot) -> None:
        self._pool, self.slot = pool, slot

    def __del__(self) -> None:
        self._pool.give(self.slot)


class FramePool:
    """Slots by kind of frame."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._lock = driver, threading.Lock()
        self._all: list[FrameSlot] = []
        self._free: list[FrameSlot] = []
        self._back: deque[FrameSlot] = deque()  # given back; without the lock, see `give`

    def take(self, kind: FrameKind) -> Lease:
        """A slot that nothing uses; slots of other kinds that lie idle are freed (a camera changed its mode)."""
        with self._lock:
            while self._back:
                self._free.append(self._back.popleft())
            found = next((s for s in self._free if s.kind == kind), None)
            others = [] if found is not None else [s for s in self._free if s.kind != kind]
            self._free = [s for s in self._free if s is not found and s not in others]
            self._all = [s for s in self._all if s not in others]
        for slot in others:
            self._wait(slot)
            slot.arena.free()
        if found is None:
            found = FrameSlot(self._driver, kind)
            with self._lock:
                self._all.append(found)
        self._wait(found)
        return Lease(self, found)

    def give(self, slot: FrameSlot) -> None:
        """Take a slot back; from any thread, also from one that the garbage collector interrupts inside the lock."""
        self._back.append(slot)

    def _wait(self, slot: FrameSlot) -> None:
        while slot.used:
            self._driver.synchronize(slot.used.pop())

    @property
    def idle(self) -> int:
        """Slots that no frame has."""
        return len(self._free) + len(self._back)

    @property
    def nbytes(self) -> int:
        """Device memory of all slots."""
        with self._lock:
            return sum(slot.arena.nbytes for slot in self._all)

    def free(self) -> None:
        """Give all memory back; nothing is queued."""
        with self._lock:
            while self._all:
                self._all.pop().arena.free()
            self._free.clear()
            self._back.clear()
