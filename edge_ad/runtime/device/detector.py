"""``detector(frame) -> Result`` with everything between the camera's images and the masks on the GPU.

The same four stages as :class:`edge_ad.runtime.detector.Detector`, of which it is one: ``prepare`` makes the cloud on
the device and finds the parts, ``encode`` queues all further work of a frame and returns at once, ``score`` waits for
it, ``finish`` decides. Run on threads (``runtime.pipeline``), the stages of consecutive frames overlap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Result, Sample
from edge_ad.runtime.detector import AUTO, Detector
from edge_ad.runtime.device.answer import FrameTicket, Ticket
from edge_ad.runtime.device.api import Driver
from edge_ad.runtime.device.cutting import DevicePreprocessor, DeviceSample, valid_pixels
from edge_ad.runtime.device.networks import Network, open_networks
from edge_ad.runtime.device.options import DeviceOptions, DeviceScore
from edge_ad.runtime.device.pipeline import DevicePipeline
from edge_ad.runtime.finish import CameraView, PartFinding, compose
from edge_ad.runtime.stages import Prepared, Scored, ScoredFrame, Stopwatch

DEVICE_BACKENDS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class DevicePart:
    """A part on its way through the device."""

    sample: Sample
    ticket: Ticket


@dataclass(frozen=True)
class DeviceFrame:
    """A frame whose parts are on their way; ``ticket`` : of what they add up to, None without a part."""

    prepared: Prepared
    parts: tuple[DevicePart, ...]
    ticket: FrameTicket | None = None


@dataclass(frozen=True)
class DeviceScored(ScoredFrame):
    """A scored frame with what the device found on it."""

    findings: tuple[PartFinding, ...] = ()
    view: CameraView | None = None


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
            limits = [self.limits[c] for c in self.classes]
            self.device = DevicePipeline(bundle, driver, networks, images, limits, options)
        host = self.preprocess
        self.preprocess = DevicePreprocessor(host.geometry, host.mean, host.std, host.scenes, front=self.device.front)

    def _load_sessions(self, backend: str, precision: str, threads: int | None) -> dict[str, Network]:  # type: ignore[override]
        return dict(self._networks)

    @property
    def concurrent(self) -> bool:
        """False: one thread queues the device's work."""
        return False

    def prepare_part(self, sample: Sample, watch: Stopwatch) -> Sample:  # type: ignore[override]
        """The sample itself: its point operations follow on the device, which also says what cannot be scored."""
        return sample

    def encode(self, prepared: Prepared) -> DeviceFrame:  # type: ignore[override]
        """Queue all device work of a frame."""
        parts = []
        with self.driver.current():
            for sample in prepared.parts:
                parts.append(self.encode_part(sample, prepared.watch, prepared.class_name))  # type: ignore[arg-type]
            cut = parts[0].sample.cut if parts and isinstance(parts[0].sample, DeviceSample) else None
            ticket = None if cut is None else self.device.finish(cut.frame)
        return DeviceFrame(prepared, tuple(parts), ticket)

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
            # Kernels take the number from the device; the score plan's runs are the host's.
            count = valid_pixels(part) if self.device.options.score == "plan" else None
            return DevicePart(part, self.device.submit(cut or part, count, index))

    def score(self, encoded: DeviceFrame) -> ScoredFrame:  # type: ignore[override]
        """Wait for a frame's maps."""
        prepared = encoded.prepared
        findings: list[PartFinding] = []
        reasons = []
        for part in encoded.parts:
            try:
                findings.append(self._answer(part, prepared.watch))
            except InvalidFrame as e:
                reasons.append(str(e))
        view = None
        if encoded.ticket is not None:
            try:
                with prepared.watch.stage("wait"):
                    view = encoded.ticket.result()
            except InvalidFrame as e:  # of the frame as a whole: what its parts say is no news
                return ScoredFrame(replace(prepared, cut=None, reasons=(str(e),)), ())
            _add(prepared.watch, encoded.ticket.times_ms())
        prepared = replace(prepared, reasons=prepared.reasons + tuple(reasons))
        return DeviceScored(prepared, tuple((f.sample, f.scored) for f in findings), tuple(findings), view)

    def score_part(self, encoded: DevicePart, class_name: str, watch: Stopwatch) -> Scored:  # type: ignore[override]
        """Wait for one part's map. The device's own times come as stages ``device ...``."""
        return self._answer(encoded, watch).scored

    def _answer(self, part: DevicePart, watch: Stopwatch) -> PartFinding:
        with watch.stage("wait"):
            found: DeviceScore = part.ticket.result()
        _add(watch, found.times_ms)
        name = self.classes[found.class_index]
        scored = Scored(name, found.map, found.score, found.distances, found.anchor_distance)
        sample = replace(part.sample, valid=found.valid, lost=found.lost)
        return PartFinding(sample, scored, found.mask, found.anomalous, found.lost_share)

    def judge(self, scored: ScoredFrame) -> Result:
        """As :meth:`edge_ad.runtime.detector.Detector.judge`, from what the device found."""
        if not isinstance(scored, DeviceScored) or scored.view is None:
            return super().judge(scored)
        return compose(scored.prepared, scored.findings, scored.view, self.limits, self.preset)

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
        """Give the device's memory, the engines and the context back, in this order; the detector is of no more use."""
        if not self._networks:  # closed before
            return
        self.device.close()
        with self.driver.current():  # engines are destroyed in the context that they were made in
            self.sessions.clear()
            self._networks = {}
            del self.device
        self.driver.close()


def _add(watch: Stopwatch, times_ms: Mapping[str, float]) -> None:
    for name, value in times_ms.items():
        watch.times_ms[name] = watch.times_ms.get(name, 0.0) + value
