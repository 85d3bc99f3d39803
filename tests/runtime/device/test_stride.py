"""Score stride on the device: the CPU's Result, fused and through the score plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.bundle.variants import threshold_slot
from edge_ad.frame import Frame
from edge_ad.runtime.detector import AUTO, Detector
from edge_ad.runtime.device.detector import DeviceDetector
from edge_ad.runtime.device.options import DeviceOptions
from tests.emulator.emulate import needs_compiler
from tests.runtime.device.emulated import EmulatedDriver
from tests.runtime.device.same import assert_same, changed

pytestmark = needs_compiler
Cpu, Device = Callable[..., Detector], Callable[..., DeviceDetector]


def at_stride(b: Bundle, stride: int) -> Bundle:
    """The bundle at a score stride, with the thresholds of stride 1."""
    own, plain = threshold_slot(b.variant, stride), threshold_slot(b.variant, 1)
    values = {c: {**slots, own: slots[plain]} for c, slots in b.manifest.thresholds.items()}
    return replace(b, stride=stride, manifest=replace(b.manifest, thresholds=values))


def slivers(frame: Frame) -> Frame:
    """Lost depth in stripes, so that some pixels have no lattice pixel around them."""
    assert frame.depth is not None
    depth = frame.depth.copy()
    depth[::2, 30:36] = 0
    depth[24:36:3, 24:40] = 0
    return replace(frame, depth=depth)


@pytest.mark.parametrize("score", ["fused", "plan"])
@pytest.mark.parametrize("stride", [2, 3])
def test_the_same_result(
    stride: int, score: str, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]
) -> None:
    """Twice each, the second time as graphs; both decisions occur. The bundle divides by expected distances."""
    b = at_stride(bundle, stride)
    reference, detector = cpu(b), device(DeviceOptions(score=score), b=b)
    exact = cpu()
    decisions = set()
    for frame in [*frames, slivers(frames[0]), frames[2]]:
        wanted = reference(frame)
        assert_same(detector(frame), wanted)
        decisions.add(wanted.decision)
        plain = exact(frame).map
        assert plain is not None and wanted.map is not None and not np.array_equal(plain, wanted.map)
    assert decisions >= {"normal", "anomalous"}  # and one with lost depth
    driver = detector.driver
    assert isinstance(driver, EmulatedDriver)
    assert {"stride_mark", "stride_gather", "stride_spread"} <= set(driver.launched)


@pytest.mark.parametrize("score", ["fused", "plan"])
def test_with_text_terms_and_auto(score: str, bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    b = at_stride(changed(bundle, fusion={"beta": 0.5}, points={"stride": 1}), 3)
    reference, detector = cpu(b, class_name=AUTO), device(DeviceOptions(score=score), b=b, class_name=AUTO)
    for frame in frames[1:]:
        assert_same(detector(frame), reference(frame))


def test_distances_of_every_pixel(bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    b = at_stride(bundle, 3)
    reference = cpu(b)
    sample = reference.preprocess(slivers(frames[0]), "cookie").samples[0]
    wanted = reference.score_sample(sample, "cookie")
    for score in ("fused", "plan"):
        found = device(DeviceOptions(score=score, distances=True), b=b).score_sample(sample, "cookie")
        assert found.anchor_distance == pytest.approx(wanted.anchor_distance, rel=1e-5)
        for name, values in wanted.distances.items():
            np.testing.assert_allclose(found.distances[name], values, rtol=1e-5, atol=2e-6)


def test_fewer_rows_are_scored(bundle: Bundle, device: Device, frames: list[Frame]) -> None:
    counts = []
    for stride in (1, 3):
        detector = device(b=at_stride(bundle, stride))
        prepared = detector.prepare(frames[0])
        detector.encode(prepared)
        slot = detector.device._slots[0]
        driver = detector.driver
        assert isinstance(driver, EmulatedDriver)
        memory, at = driver.find(slot.scored.count.address)
        counts.append(int(memory.bytes[at : at + 4].view(np.int32)[0]))
    assert 0 < counts[1] < counts[0] / 6
