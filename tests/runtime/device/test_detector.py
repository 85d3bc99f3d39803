"""The same frames through the CPU's detector and through the device pipeline give the same Result."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.runtime.detector import AUTO, AUTO_PIXELS, Detector
from edge_ad.runtime.device import score as device_score
from edge_ad.runtime.device.detector import DeviceDetector
from edge_ad.runtime.device.options import DeviceOptions
from edge_ad.runtime.pipeline import Pipeline, stages
from tests.emulator.emulate import SCHEDULES, needs_compiler
from tests.frames import boxes
from tests.runtime.device.emulated import EmulatedDriver
from tests.runtime.device.same import assert_same, changed
from tests.training.tiny import make_frame

pytestmark = needs_compiler
Cpu, Device = Callable[..., Detector], Callable[..., DeviceDetector]


def test_the_pixels_of_auto_are_the_detectors() -> None:
    assert device_score.AUTO_PIXELS == AUTO_PIXELS


def test_same_results(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    """Twice each: as it is queued at first, and as CUDA graphs. Both decisions occur."""
    reference, detector = cpu(), device()
    decisions = set()
    for frame in (*frames, *frames):
        wanted = reference(frame)
        assert_same(detector(frame), wanted)
        decisions.add(wanted.decision)
    assert decisions == {"normal", "anomalous"}
    driver = detector.driver
    assert isinstance(driver, EmulatedDriver)
    assert sum(g.launches for g in driver.graphs) >= 6 * 4  # all but the first frame


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_in_other_orders_of_threads(schedule: str, cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    assert_same(device(driver=EmulatedDriver(schedule=schedule))(frames[2]), cpu()(frames[2]))


def test_the_score_plan_gives_the_same(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    for class_name in (None, AUTO):
        reference, detector = cpu(class_name=class_name), device(DeviceOptions(score="plan"), class_name=class_name)
        for frame in frames[1:]:
            assert_same(detector(frame), reference(frame))


def test_fp16_storage(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    reference, detector = cpu(), device(DeviceOptions(half=True))
    for frame in frames:
        assert_same(detector(frame), reference(frame), 2e-3, masks=False)


def test_auto_chooses_the_class_on_the_device(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    reference, detector = cpu(class_name=AUTO), device(class_name=AUTO)
    found = set()
    for frame in frames:
        wanted = reference(frame)
        assert_same(detector(frame), wanted)
        found.add(wanted.class_name)
    assert found  # the tiny model may know one class better than the other


@pytest.mark.parametrize("score", ["fused", "plan"])
@pytest.mark.parametrize(
    "fusion",
    [
        {"beta": 0.0, "smooth_over": "image", "smoothing": "box-cascade", "rim": 0, "spread": 0},
        {"beta": 0.5, "smooth_over": "valid", "smoothing": "gaussian", "sigma": 8.0},
        {"smoothing": "none", "score": "max-over-rms"},
        {"smoothing": "gaussian", "smooth_over": "image", "sigma": 2.0, "rim": 0, "spread": 0},
        {"smoothing": "gaussian", "smooth_over": "valid", "sigma": 8.0, "rim": 0, "spread": 0},
        {"smoothing": "gaussian", "smooth_over": "valid", "sigma": 3.0, "rim": 4, "spread": 0},
        {"smoothing": "box-cascade", "smooth_over": "valid", "rim": 2, "spread": 5, "combine": "product"},
    ],
)
def test_other_fusions(
    fusion: dict[str, object], score: str, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    b = changed(bundle, fusion=fusion)
    wanted = cpu(b)(frames[2])
    assert_same(device(DeviceOptions(score=score), b=b)(frames[2]), wanted)


@pytest.mark.parametrize("points", [{"normalize": "unit-sphere"}, {"normalize": "none", "stride": 1, "pool": 1}])
def test_other_point_input(
    points: dict[str, object], bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    b = changed(bundle, points=points)
    assert_same(device(b=b)(frames[0]), cpu(b)(frames[0]))


@pytest.mark.parametrize("options", [DeviceOptions(), DeviceOptions(score="plan")], ids=["fused", "plan"])
def test_levels_divide_the_distances_as_on_the_cpu(
    options: DeviceOptions, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    """The bundle has them, with beta = 0; a second frame runs the recorded graphs and divides once."""
    f = bundle.preset.fusion
    assert (f.level, f.beta) == ("predicted", 0.0)
    assert {"rgb_level", "point_level"} <= {t.name for t in bundle.graph("tokens").outputs}
    reference, detector = cpu(), device(options)
    for frame in (frames[2], frames[0], frames[2]):
        assert_same(detector(frame), reference(frame))
    driver = detector.driver
    assert isinstance(driver, EmulatedDriver)
    assert "score_levels" in driver.launched


def test_distances_and_the_distance_to_the_anchor(
    bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    """What calibration reads of a sample; and a sample that was cut on the host gives the same."""
    reference = cpu()
    sample = reference.preprocess(frames[0], "cookie").samples[0]
    for options in (DeviceOptions(distances=True), DeviceOptions(score="plan", distances=True)):
        for b in (bundle, changed(bundle, fusion={"beta": 0.5})):
            wanted = cpu(b).score_sample(sample, "cookie")
            found = device(options, b=b).score_sample(sample, "cookie")
            assert found.class_name == wanted.class_name
            assert found.anchor_distance == pytest.approx(wanted.anchor_distance, rel=1e-5)
            for name, values in wanted.distances.items():
                np.testing.assert_allclose(found.distances[name], values, rtol=1e-5, atol=2e-6)


def test_on_an_integrated_gpu_frames_are_read_where_they_are(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    uploads = []

    class Jetson(EmulatedDriver):
        def upload(self, target, source, nbytes, stream) -> None:  # type: ignore[no-untyped-def]
            uploads.append(nbytes)
            super().upload(target, source, nbytes, stream)

    detector = device(driver=Jetson(integrated=True))
    uploads.clear()  # constants
    detector(frames[0])
    uploads.clear()  # the tables of this window, and the warm-up
    assert_same(detector(frames[0]), cpu()(frames[0]))
    assert sum(uploads) < 200  # the report


def test_where_no_graph_can_be_recorded_it_is_said_and_nothing_else_changes(
    cpu: Cpu, device: Device, frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    detector = device(driver=EmulatedDriver(unrecordable=True))
    for _ in range(2):
        assert_same(detector(frames[0]), cpu()(frames[0]))
    assert "driver error 900" in detector.device.why_no_graphs
    assert caplog.text.count("no CUDA graphs") == 1


@pytest.mark.parametrize("slots", [1, 2])
def test_more_parts_in_a_frame_than_slots(slots: int, cpu: Cpu, device: Device) -> None:
    frame = boxes(80, 140, (10, 30, 10, 30), (45, 65, 55, 75), (12, 32, 100, 120), class_name="hex_nut")
    wanted = cpu()(frame)
    assert len(cpu().preprocess(frame, "hex_nut").samples) == 3
    assert_same(device(DeviceOptions(slots=slots))(frame), wanted)


def test_frames_overlap_on_threads(cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    """Four threads, two slots: the order and the results are those of one frame after another; no race is found."""
    detector, reference = device(), cpu()
    source = [replace(f, sequence=i) for i, f in enumerate([*frames, *frames])]
    with Pipeline(source, stages(detector)) as pipeline:
        results = [d.result for d in pipeline]
    assert len(results) == len(source)
    for found, frame in zip(results, source):
        assert found is not None
        assert_same(found, reference(frame))


def test_the_next_frames_points_are_queued_before_this_frames_map_is_asked_for(
    device: Device, frames: list[Frame]
) -> None:
    detector = device()
    first, second = (detector.encode(detector.prepare(f)) for f in frames[:2])
    tickets = [f.parts[0].ticket for f in (first, second)]
    assert tickets[0]._answer is None and tickets[1]._answer is None
    third = detector.encode(detector.prepare(frames[2]))
    assert tickets[0]._answer is not None  # its slot was needed; its answer is kept
    for frame in (first, second, third):
        assert detector.finish(detector.score(frame)).map is not None


def test_device_stages_are_timed_by_events(device: Device, frames: list[Frame]) -> None:
    times = device()(frames[0]).times_ms
    stages_found = [n for n in times if n.startswith("device ")]
    assert stages_found == [
        "device points", "device point encoder", "device rgb encoder", "device tokens + score + map", "device total",
        "device cloud", "device areas",
    ]  # fmt: skip
    assert all(times[n] > 0 for n in stages_found)
    assert not any(n.startswith("device ") for n in device(DeviceOptions(timing=False))(frames[0]).times_ms)


def test_device_memory_is_counted(device: Device) -> None:
    small, large = device(DeviceOptions(slots=1)).device.nbytes, device(DeviceOptions(slots=3)).device.nbytes
    assert 0 < small < large


def test_profile_shows_device_stages_and_memory(
    device: Device, bundle: Bundle, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.bundle import OperatingPoint
    from edge_ad.runtime.device import detector as module
    from edge_ad.runtime.profiling import measure

    made = device()
    monkeypatch.setattr(module, "DeviceDetector", lambda *_, **__: made)
    monkeypatch.setattr(measure, "measure_peak", lambda threads: measure.Peak("test", 1, 1.0, 1.0))
    point = OperatingPoint(backend="tensorrt", precision="fp32")
    found = measure.profile(bundle, point, frames[:2], frames=1, warm_up=1, on_device=True)
    assert {"device points", "device rgb encoder", "device total"} < set(found.stages)
    assert found.memory["device buffers"] > 0 and found.memory["device in use"] == pytest.approx((4 << 30) / 1e6)


@pytest.mark.parametrize(
    "frame",
    [make_frame("cookie", -1), boxes(60, 72, (20, 26, 20, 26), class_name="cookie")],
    ids=["no part", "a small part"],
)
def test_frames_that_cannot_be_scored(frame: Frame, cpu: Cpu, device: Device) -> None:
    wanted = cpu()(frame)
    assert_same(device()(frame), wanted)


def test_points_that_coincide(bundle: Bundle, device: Device, cpu: Cpu, frames: list[Frame]) -> None:
    b = changed(bundle, points={"normalize": "unit-sphere"})
    sample = cpu(b).preprocess(frames[0], "cookie").samples[0]
    one = replace(sample, xyz=np.where(sample.valid[..., None], np.float32(0.25), np.float32(0)))
    detector = device(b=b)
    with pytest.raises(Exception, match="all valid points coincide"):
        detector.score_sample(one, "cookie")
    assert detector.score_sample(sample, "cookie").score > 0  # the slot is free again


def test_what_leaves_fp16_is_refused(device: Device, bundle: Bundle, frames: list[Frame]) -> None:
    from tests.runtime.device.networks import networks

    driver = EmulatedDriver()
    nets = networks(driver, bundle)
    session = nets["tokens"]._session

    class Loud:
        def run(self, names, feed):  # type: ignore[no-untyped-def]
            return [t * np.float32(1e6) for t in session.run(names, feed)]

    nets["tokens"]._session = Loud()
    detector = device(DeviceOptions(half=True), driver=driver, networks=nets)
    with pytest.raises(EdgeAdError, match="left the range of FP16"):
        detector(frames[0])


def test_refusals(device: Device, bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="device score 'quick'; expected fused or plan"):
        DeviceOptions(score="quick")
    with pytest.raises(EdgeAdError, match="backend 'onnxruntime' on the device; expected one of tensorrt"):
        DeviceDetector(bundle, "onnxruntime")
    with pytest.raises(EdgeAdError, match="0 slots"):
        DeviceOptions(slots=0)
    with pytest.raises(EdgeAdError, match="unknown class"):
        device(class_name="teapot")


def test_closing_destroys_the_engines_before_the_context(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = device()
    engine = weakref.ref(detector._networks["rgb"])
    left: list[object] = []
    monkeypatch.setattr(detector.driver, "close", lambda: left.append(engine()))
    assert engine() is not None
    detector.close()
    detector.close()
    assert left == [None]


def test_networks_of_other_types_are_refused() -> None:
    from types import SimpleNamespace

    from edge_ad.bundle import TensorSpec
    from edge_ad.runtime.device.networks import check_types

    plan = SimpleNamespace(inputs=[TensorSpec("image", (1,), "float16")], outputs=[])
    with pytest.raises(EdgeAdError, match="plan rgb: 'image' is float16"):
        check_types({"rgb": plan})  # type: ignore[dict-item]
