"""From the camera's images to the cloud and what every pixel is, on the device; the host finds the parts.

What the host needs of it is fetched by :class:`DevicePixels`: a byte a pixel, and the few points that a plane is fitted
to. The reasons stand in docs/cuda-runtime.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, Bool, Extrinsics, Frame, Intrinsics
from edge_ad.runtime.device.api import Driver, Memory, Stream
from edge_ad.runtime.device.buffers import Arena, Input, Output, View
from edge_ad.runtime.device.frame import SEEN, FrameKind, FramePool, FrameSlot, Lease
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.frame_check import NO_DEPTH, check_splat
from edge_ad.runtime.geometry import Plane, _rays
from edge_ad.runtime.kernels.launch import REGISTERED, per_thread
from edge_ad.runtime.registration import colour_camera, corner_rays, registered

FOREGROUND, LOST, HAS_DEPTH, USABLE = 1, 2, 4, 8
"""Bits of a pixel's flags (depth.cu)."""
TOP = 65535
T = TypeVar("T")


class Kept:
    """Constants on the device by what they are made from; the least recently used go when there are too many."""

    def __init__(self, driver: Driver, stream: Stream, most: int = 8) -> None:
        self._driver, self._stream, self._most = driver, stream, most
        self._held: OrderedDict[Hashable, tuple[Arena, Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[Arena], T]) -> T:
        """What ``make`` put into an arena of its own."""
        if key not in self._held:
            if len(self._held) >= self._most:
                self._driver.synchronize(self._stream)  # what is queued may still read the oldest
                self._held.popitem(last=False)[1][0].free()
            own = Arena(self._driver)
            self._held[key] = own, make(own)
        self._held.move_to_end(key)
        return self._held[key][1]  # type: ignore[no-any-return]

    def free(self) -> None:
        """Give all of it back; nothing is queued."""
        while self._held:
            self._held.popitem()[1][0].free()


@dataclass(frozen=True)
class PixelTest:
    """What the pixels of a frame are tested by: masks (H, W) bool or None, a plane or None, limits in metres."""

    inside: Bool | None
    expected: Bool | None
    plane: Plane | None
    plane_distance_m: float
    max_depth_m: float


class FrontEnd:
    """Queues a frame's way to its cloud and flags on a stream; one thread at a time."""

    def __init__(self, driver: Driver, kernels: KernelSet, stream: Stream) -> None:
        self._driver, self._kernels, self.stream = driver, kernels, stream
        self.pool = FramePool(driver)
        self._kept = Kept(driver, self.stream)
        self._masks = Kept(driver, self.stream, most=64)
        self._scratch = Kept(driver, self.stream, most=2)
        self._arena = Arena(driver)
        self._plane = Input(self._arena, (4,), np.float32)

    def current(self) -> AbstractContextManager[None]:
        """Make the device's context current in this thread."""
        return self._driver.current()

    def put(self, frame: Frame, test: PixelTest) -> Lease:
        """Queue a checked frame's images and kernels; ``ready`` is recorded behind them."""
        if frame.depth_intrinsics is not None and frame.depth is not None and frame.depth.dtype not in ("u2", "f4"):
            frame = registered(frame)  # no camera gives it: depth of another type on a grid of its own
        lease = self.pool.take(FrameKind.of(frame))
        slot = lease.slot
        slot.used.append(slot.ready)
        slot.colour.array[:] = frame.colour
        given = slot.given or slot.depth
        assert given is not None
        given.array[:] = frame.xyz if slot.given is not None else frame.depth
        self._driver.record(slot.begun, self.stream)
        for piece in (slot.colour, given):
            piece.send(self.stream)
        self.enqueue(slot, frame, test)
        for event in (slot.made, slot.ready):
            self._driver.record(event, self.stream)
        return lease

    def enqueue(self, slot: FrameSlot, frame: Frame, test: PixelTest) -> None:
        """Queue the kernels of a frame whose images are on the device."""
        d, stream, plane = self._driver, self.stream, None
        d.zero(slot.seen, 4 * SEEN, stream)
        for memory, width in ((slot.map, 4), (slot.mask, 1), (slot.lost, 1)):
            d.zero(memory, width * slot.pixels, stream)
        if test.plane is not None:
            plane = self._kept.get(test.plane, lambda a: a.constant(_numbers(test.plane), stream))
        tests = self._tests(test, plane)
        if slot.depth is None:
            self._check(slot, tests)
            return
        assert frame.intrinsics is not None
        depth, kind = slot.depth.memory, slot.depth_kind
        if slot.registered is not None:
            assert frame.depth_intrinsics is not None and frame.extrinsics is not None
            d.zero(slot.registered, 4 * slot.pixels, stream)
            self._register(slot, frame.depth_scale_m, frame.depth_intrinsics, frame.intrinsics, frame.extrinsics)
            depth, kind = slot.registered, kind + REGISTERED
        self._kernels.run("depth_to_cloud", per_thread(slot.pixels), stream, depth, kind, float(frame.depth_scale_m),
                          *self._rays(frame.intrinsics), *slot.size, *tests, slot.xyz, slot.flags,
                          slot.seen)  # fmt: skip

    def _check(self, slot: FrameSlot, tests: tuple[Any, ...]) -> None:
        self._kernels.run("check_cloud", per_thread(slot.pixels), self.stream, slot.xyz, slot.pixels, *tests,
                          slot.flags, slot.seen)  # fmt: skip

    def above(self, slot: FrameSlot, test: PixelTest) -> None:
        """Queue the test of a frame's pixels by a plane that was fitted to it."""
        self._driver.synchronize(self.stream)  # the last frame's test may still read the plane
        self._plane.array[:] = _numbers(test.plane)
        self._plane.send(self.stream)
        self._check(slot, self._tests(test, self._plane.memory))
        self._driver.record(slot.ready, self.stream)

    def _tests(self, test: PixelTest, plane: Any) -> tuple[Any, ...]:
        masks = [None if m is None else self._mask(m) for m in (test.inside, test.expected)]
        return *masks, plane, float(test.plane_distance_m), float(test.max_depth_m)

    def _mask(self, mask: Bool) -> Memory:
        """A scene's mask; the same array is sent once, and held so that its identity stays its own."""
        return self._masks.get(id(mask), lambda a: (a.constant(mask.astype(np.uint8), self.stream), mask))[0]

    def _rays(self, k: Intrinsics) -> tuple[Memory, Memory, int]:
        def make(arena: Arena) -> tuple[Memory, Memory, int]:
            x, y = _rays(k)
            lens = any(k.distortion)
            tables = (x, y) if lens else (x[0], y[:, 0])
            a, b = (arena.constant(t, self.stream) for t in tables)
            return a, b, int(lens)

        return self._kept.get(k, make)

    def _register(
        self, slot: FrameSlot, scale: float, source: Intrinsics, target: Intrinsics, extrinsics: Extrinsics
    ) -> None:
        def make(arena: Arena) -> tuple[Memory, Memory, Memory]:
            near, far = corner_rays(source, extrinsics)
            tables = near, far, colour_camera(target, extrinsics)
            a, b, camera = (arena.constant(t, self.stream) for t in tables)
            return a, b, camera

        near, far, camera = self._kept.get((source, target, extrinsics), make)
        n = source.height * source.width
        assert slot.depth is not None and slot.registered is not None
        self._kernels.run("register_depth", per_thread(n), self.stream, slot.depth.memory, slot.depth_kind,
                          float(scale), TOP, near, far, n, camera, *slot.size, slot.registered,
                          View(slot.seen, 8, 4))  # fmt: skip

    def gather(self, slot: FrameSlot, pixels: Any) -> F32:
        """The points of some pixels, (n, 3) float32; waits for them. pixels : (n,) numbers, row by row."""
        n, stream = len(pixels), self.stream
        if n == 0:
            return np.empty((0, 3), np.float32)
        room = 1 << (n - 1).bit_length()

        def make(arena: Arena) -> tuple[Input, Memory, Output]:
            points = arena.device((room, 3))
            return Input(arena, (room,), np.int32), points, Output(arena, points, (room, 3), np.float32)

        index, points, out = self._scratch.get(room, make)
        index.array[:n] = pixels
        index.send(stream)
        self._kernels.run("gather_points", per_thread(n), stream, slot.xyz, index.memory, n, points)
        out.fetch(stream)
        self._driver.synchronize(stream)
        return out.read()[:n]

    def flags(self, slot: FrameSlot) -> tuple[Any, Any]:
        """Flags (H, W) uint8 and what was counted (4,) int32; waits for them."""
        slot.out_flags.fetch(self.stream)
        slot.out_seen.fetch(self.stream)
        self._driver.synchronize(self.stream)
        return slot.out_flags.read(), slot.out_seen.read()

    def free(self) -> None:
        """Give all memory back."""
        self._driver.synchronize(self.stream)
        for kept in (self._kept, self._masks, self._scratch):
            kept.free()
        self._arena.free()
        self.pool.free()


def _numbers(plane: Plane | None) -> F32:
    assert plane is not None
    return np.array([*plane.normal, plane.offset], np.float32)


def check_seen(seen: Any) -> None:
    """Refuse a frame by what its kernels counted; raises InvalidFrame."""
    check_splat(int(seen[2]))
    if seen[0] == 0:
        raise InvalidFrame(*NO_DEPTH)


class DevicePixels:
    """:class:`edge_ad.runtime.parts.Pixels` of a frame on the device; made by waiting for its flags."""

    def __init__(self, front: FrontEnd, slot: FrameSlot, test: PixelTest) -> None:
        self._front, self._slot, self._test = front, slot, test
        self._flags, seen = front.flags(slot)
        check_seen(seen)
        self.has_depth: Bool = (self._flags & HAS_DEPTH) > 0
        self.usable: Bool = (self._flags & USABLE) > 0

    def points(self, mask: Bool) -> F32:
        """Of the pixels of a mask, row by row."""
        return self._front.gather(self._slot, np.flatnonzero(mask))

    def above(self, plane: Plane, distance_m: float) -> Bool:
        """Usable pixels above a plane."""
        if plane is not self._test.plane:
            test = PixelTest(self._test.inside, self._test.expected, plane, distance_m, self._test.max_depth_m)
            self._front.above(self._slot, test)
            self._flags, _ = self._front.flags(self._slot)
        return np.asarray((self._flags & FOREGROUND) > 0, dtype=np.bool_)
