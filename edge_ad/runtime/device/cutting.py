"""The preprocessing of the device path: cloud, tests and cut by kernels, the parts found by the host."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np

from edge_ad.frame import U8, Bool, Frame, Sample, SampleTransform
from edge_ad.runtime.device.frame import Lease
from edge_ad.runtime.device.front import FOREGROUND, LOST, DevicePixels, FrontEnd, PixelTest
from edge_ad.runtime.device.options import Cut
from edge_ad.runtime.frame_check import check_frame
from edge_ad.runtime.parts import find_pieces, window
from edge_ad.runtime.preprocess import Preprocessed, Preprocessor, Scene, nearest_to_sample
from edge_ad.runtime.scene_check import SEEN_STRIDE, check

_NO_IMAGE = np.empty((3, 0, 0), np.float32)
_NO_CLOUD = np.empty((0, 0, 3), np.float32)
_NO_MASK = np.empty((0, 0), np.bool_)


@dataclass(frozen=True)
class DeviceSample(Sample):
    """A sample that lies on the device; on the host it is empty until it has been scored."""

    cut: Cut | None = None


def valid_pixels(sample: Sample) -> int | None:
    """How many valid pixels a sample has, where the host knows."""
    if not isinstance(sample, DeviceSample) or sample.cut is None:
        return int(sample.valid.sum())
    if sample.cut.flags is None:
        return None
    flags = np.asarray(nearest_to_sample(sample.cut.flags, sample.transform), np.uint8)
    return int(np.count_nonzero(flags & FOREGROUND))


@dataclass
class DevicePreprocessor(Preprocessor):
    """Leaves everything to the device but finding the parts, where there may be several or one without a fixed window.

    One camera, one thread at a time.
    """

    front: FrontEnd = field(kw_only=True)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, frame: Frame, class_name: str | None = None) -> Preprocessed:
        """As :meth:`edge_ad.runtime.preprocess.Preprocessor.__call__`; what no host step sees is refused later."""
        with self._lock, self.front.current():
            check_frame(frame)
            scene = self.scene_of(class_name)
            inside, expected = self.masks(scene, frame, class_name)
            return self._cut_on_device(frame, scene, inside, expected)

    def _cut_on_device(self, frame: Frame, scene: Scene, inside: Bool | None, expected: Bool | None) -> Preprocessed:
        g, setup = self.geometry, scene.setup
        plane = setup.plane if setup is not None and g.background == "plane" else None
        wanted = expected if g.pose == "fixed" else None
        test = PixelTest(inside, wanted, plane, g.plane_distance_m, g.max_depth_m)
        lease = self.front.put(frame, test)
        if g.background == "none" and g.crop != "part" and setup is None:
            t = window(g, frame.shape, inside, None)
            return Preprocessed((_sample(lease, t, None, ()),), _NO_CLOUD)
        pixels = DevicePixels(self.front, lease.slot, test)
        pieces, notes = find_pieces(g, setup, inside, expected, pixels)
        samples = []
        for p in pieces:
            flags = p.foreground * np.uint8(FOREGROUND) | p.lost * np.uint8(LOST)
            samples.append(_sample(lease, p.transform, flags, p.notes))
        health: tuple[str, ...] = ()
        if setup is not None:
            h, w = frame.shape
            every = np.arange(h * w, dtype=np.int32).reshape(h, w)[::SEEN_STRIDE, ::SEEN_STRIDE]
            coarse = self.front.gather(lease.slot, every.ravel()).reshape(*every.shape, 3)
            health = check(setup, frame.shape, coarse)
        return Preprocessed(tuple(samples), _NO_CLOUD, notes, health)


def _sample(lease: Lease, t: SampleTransform, flags: U8 | None, notes: tuple[str, ...]) -> DeviceSample:
    return DeviceSample(_NO_IMAGE, _NO_CLOUD, _NO_MASK, _NO_MASK, t, notes, Cut(lease, flags, t))
