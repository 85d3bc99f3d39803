"""``detector(frame) -> Result`` with everything between the camera's images and the map on the GPU.

The same four stages as :class:`edge_ad.runtime.detector.Detector`, of which it is one: ``prepare`` finds the parts on
the host (plane, clusters, windows), ``encode`` queues all device work of a frame and returns at once, ``score`` waits
for the maps, ``finish`` is the same code. Run on threads (``runtime.pipeline``), the stages of consecutive frames
overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, U8, Bool, Sample, SampleTransform
from edge_ad.runtime.detector import AUTO, Detector
from edge_ad.runtime.device.api import Driver
from edge_ad.runtime.device.networks import Network, open_networks
from edge_ad.runtime.device.options import Cut, DeviceOptions
from edge_ad.runtime.device.pipeline import DevicePipeline, Ticket
from edge_ad.runtime.maps import image_score
from edge_ad.runtime.point_input import _measured
from edge_ad.runtime.preprocess import Preprocessor, mask_to_sample
from edge_ad.runtime.stages import Prepared, Scored, ScoredFrame, Stopwatch

DEVICE_BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class DeviceSample(Sample):
    """A sample whose colour and cloud are cut on the device; on the host they are empty."""

    cut: Cut | None = None


_NO_IMAGE = np.empty((3, 0, 0), np.float32)
_NO_CLOUD = np.empty((0, 0, 3), np.float32)


class DevicePreprocessor(Preprocessor):
    """Finds the parts as ever, and leaves the cutting to the device."""

    def _cut(
        self, colour: U8, xyz: F32, foreground: Bool, lost: Bool, t: SampleTransform, notes: tuple[str, ...]
    ) -> Sample:
        return DeviceSample(
            rgb=_NO_IMAGE,
            xyz=_NO_CLOUD,
            valid=mask_to_sample(foreground, t),
            lost=mask_to_sample(lost, t),
            transform=t,
            notes=notes,
            cut=Cut(colour, xyz, foreground, t),
        )


@dataclass(frozen=True)
class DevicePart:
    """A part on its way through the device."""

    sample: Sample
    ticket: Ticket


@dataclass(frozen=True)
class DeviceFrame:
    """A frame whose parts are on their way."""

    prepared: Prepared
    parts: tuple[DevicePart, ...]


class DeviceDetector(Detector):
    """Inspects frames on the first GPU.

    Parameters
    ----------
    bundle, backend, precision, class_name, need_threshold : as :class:`edge_ad.runtime.detector.Detector`; the backend
        is ``tensorrt`` or ``tensorrt-rtx``. options : of the pipeline. driver, networks, images : instead of the GPU's
        (tests).

    Raises
    ------
    EdgeAdError
        No CUDA device, no PyCUDA, no engine with kernels for this device; one line each.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "tensorrt",
        precision: str = "fp16",
        class_name: str | None = None,
        need_threshold: bool = True,
        options: DeviceOptions | None = None,
        driver: Driver | None = None,
        networks: Mapping[str, Network] | None = None,
        images: Mapping[str, bytes] | None = None,
    ) -> None:
        if backend not in DEVICE_BACKENDS:
            raise EdgeAdError(f"backend '{backend}' on the device", f"one of {', '.join(DEVICE_BACKENDS)}")
        if bundle.stride > 1:
            raise EdgeAdError(
                f"score stride {bundle.stride} on the device",
                "1: the device scores every pixel",
                "run without --on-device, or without --score-stride",
            )
        if options is None:
            fused = bundle.preset.mappers.kind == "gacm"
            options = DeviceOptions("fused" if fused else "plan", half=precision != "fp32")
        if driver is None:
            from edge_ad.runtime.driver import PyCudaDriver

            driver = PyCudaDriver()
        self.driver: Driver = driver
        with driver.current():
            if networks is None or images is None:
                networks, images = open_networks(bundle, backend, precision, driver)
            self._networks = networks
            super().__init__(bundle, backend, precision, None, class_name, need_threshold)
            self.device = DevicePipeline(bundle, driver, networks, images, options)
        g, rgb = self.preset.geometry, self.preset.rgb
        self.preprocess = DevicePreprocessor(g, rgb.mean, rgb.std, self.preprocess.scenes)

    def _load_sessions(self, backend: str, precision: str, threads: int | None) -> dict[str, Network]:  # type: ignore[override]
        return dict(self._networks)

    @property
    def concurrent(self) -> bool:
        """False: one thread queues the device's work."""
        return False

    def prepare_part(self, sample: Sample, watch: Stopwatch) -> Sample:  # type: ignore[override]
        """Check on the host what can be checked there; the point operations follow on the device.

        Raises
        ------
        InvalidFrame
            Fewer valid pixels than the preset's ``limits.min_valid``, than one group holds, or than centres to
            interpolate between.
        """
        count = int(sample.valid.sum())
        if count < self.preset.limits.min_valid:
            raise InvalidFrame(f"only {count} valid pixels", f"at least {self.preset.limits.min_valid}")
        p = self.preset.points
        for points in (_measured(sample), int(sample.valid[:: p.stride, :: p.stride].sum())):
            if points < p.group_size:
                raise InvalidFrame(f"only {points} valid points", f"at least {p.group_size}, the size of one group")
        return sample

    def encode(self, prepared: Prepared) -> DeviceFrame:  # type: ignore[override]
        """Queue all device work of a frame."""
        parts = []
        with self.driver.current():
            for sample in prepared.parts:
                parts.append(self.encode_part(sample, prepared.watch, prepared.class_name))  # type: ignore[arg-type]
        return DeviceFrame(prepared, tuple(parts))

    def encode_part(self, part: Sample, watch: Stopwatch, class_name: str = AUTO) -> DevicePart:  # type: ignore[override]
        """Queue one part; inside ``driver.current()``."""
        if class_name == AUTO and len(self.classes) == 1:
            class_name = self.classes[0]
        if class_name == AUTO and not self.has_text:
            raise EdgeAdError(
                "the class 'auto' needs text anchors, and this model has none",
                f"one of {', '.join(self.classes)}",
                "name it with --class",
            )
        if class_name != AUTO:
            self._check_class(class_name)
        cut = part.cut if isinstance(part, DeviceSample) else None
        index = None if class_name == AUTO else self.classes.index(class_name)
        with watch.stage("queue"):
            return DevicePart(part, self.device.submit(cut or part, int(part.valid.sum()), index))

    def score(self, encoded: DeviceFrame) -> ScoredFrame:  # type: ignore[override]
        """Wait for a frame's maps."""
        prepared = encoded.prepared
        parts, reasons = [], []
        for part in encoded.parts:
            try:
                parts.append((part.sample, self.score_part(part, prepared.class_name, prepared.watch)))
            except InvalidFrame as e:
                reasons.append(str(e))
        return ScoredFrame(replace(prepared, reasons=prepared.reasons + tuple(reasons)), tuple(parts))

    def score_part(self, encoded: DevicePart, class_name: str, watch: Stopwatch) -> Scored:  # type: ignore[override]
        """Wait for one part's map. The device's own times come as stages ``device ...``."""
        with watch.stage("wait"):
            found = encoded.ticket.result()
        for name, value in found.times_ms.items():
            watch.times_ms[name] = watch.times_ms.get(name, 0.0) + value
        score = image_score(found.map, self.preset.fusion)
        return Scored(self.classes[found.class_index], found.map, score, found.distances, found.anchor_distance)

    def score_sample(self, sample: Sample, class_name: str = AUTO, watch: Stopwatch | None = None) -> Scored:
        """As :meth:`edge_ad.runtime.detector.Detector.score_sample`."""
        watch = watch or Stopwatch()
        with self.driver.current():
            part = self.encode_part(self.prepare_part(sample, watch), watch, class_name)
        return self.score_part(part, class_name, watch)

    def device_memory_mb(self) -> dict[str, float]:
        """10^6 bytes of device memory: what the pipeline's buffers take, and what is in use in all on the GPU."""
        with self.driver.current():
            free, total = self.driver.memory()
        return {"device buffers": self.device.nbytes / 1e6, "device in use": (total - free) / 1e6}

    def close(self) -> None:
        """Give the device's memory and the context back."""
        self.device.close()
        self.driver.close()
