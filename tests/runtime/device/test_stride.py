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


def at_stride(b: Bundle, stride: int, frames: list[Frame]) -> Bundle:
    """The bundle at a score stride, with a threshold between the scores that the frames have there."""
    view = replace(b, stride=stride)
    own, plain = threshold_slot(b.variant, stride), threshold_slot(b.variant, 1)
    scores = sorted(Detector(view, threads=1, need_threshold=False)(f).score for f in frames)
    middle = (scores[0] + scores[-1]) / 2
    values = {}
    for c, slots in b.manifest.thresholds.items():
        moved = {p: replace(limit, value=middle, mask_value=middle / 2) for p, limit in slots[plain].items()}
        values[c] = {**slots, own: moved}
    return replace(view, manifest=replace(b.manifest, thresholds=values))


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
    """From the second frame on as graphs; both decisions occur. The bundle divides by expected distances."""
    b = at_stride(bundle, stride, frames)
    reference, detector = cpu(b), device(DeviceOptions(score=score), b=b)
    exact = cpu()
    decisions = set()
    for frame in [*frames, slivers(frames[0])]:
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
    b = at_stride(changed(bundle, fusion={"beta": 0.5}, points={"stride": 1}), 3, frames)
    reference, detector = cpu(b, class_name=AUTO), device(DeviceOptions(score=score), b=b, class_name=AUTO)
    for frame in frames[1:]:
        assert_same(detector(frame), reference(frame))


def test_distances_of_every_pixel(bundle: Bundle, cpu: Cpu, device: Device, frames: list[Frame]) -> None:
    b = at_stride(bundle, 3, frames)
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
        detector = device(b=at_stride(bundle, stride, frames))
        prepared = detector.prepare(frames[0])
        detector.encode(prepared)
        slot = detector.device._slots[0]
        driver = detector.driver
        assert isinstance(driver, EmulatedDriver)
        memory, at = driver.find(slot.scored.count.address)
        counts.append(int(memory.bytes[at : at + 4].view(np.int32)[0]))
    assert 0 < counts[1] < counts[0] / 6
