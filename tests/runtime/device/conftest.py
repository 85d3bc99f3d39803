"""One bundle with thresholds that divide the tiny frames, and both detectors on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_ad.bundle import Bundle, Threshold
from edge_ad.frame import Frame
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.device.detector import DeviceDetector
from edge_ad.runtime.device.options import DeviceOptions
from tests.runtime.device.emulated import EmulatedDriver
from tests.runtime.device.networks import images, networks
from tests.training.tiny import make_frame


@pytest.fixture(scope="session")
def frames() -> list[Frame]:
    """Good parts of both classes and one with a planted defect (a hole in the colour and a dent)."""
    good = [make_frame("cookie", 3), make_frame("hex_nut", 4)]
    bad = make_frame("cookie", 5)
    assert bad.depth is not None
    colour, depth = bad.colour.copy(), bad.depth.copy()
    colour[26:33, 30:40] = (255, 0, 255)
    depth[27:31, 32:38] += 8
    return [*good, replace(bad, colour=colour, depth=depth)]


@pytest.fixture(scope="session")
def bundle(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory, frames: list[Frame]) -> Bundle:
    """The tiny bundle with a threshold between the scores of the frames."""
    path = tmp_path_factory.mktemp("device") / "bundle"
    shutil.copytree(tiny_export, path)
    opened = Bundle.open(path)
    scores = sorted(Detector(opened, threads=1, need_threshold=False)(f).score for f in frames)
    value = (scores[0] + scores[-1]) / 2
    threshold = Threshold(value, value / 2, 20, 0.05, "2025-01-01T00:00:00+00:00")
    return opened.with_thresholds(dict.fromkeys(opened.class_names, threshold), "fp32")


@pytest.fixture
def cpu(bundle: Bundle) -> Callable[..., Detector]:
    """``cpu(bundle=..., class_name=...)``."""

    def build(b: Bundle = bundle, class_name: str | None = None) -> Detector:
        return Detector(b, threads=1, class_name=class_name)

    return build


@pytest.fixture
def device(bundle: Bundle) -> Iterator[Callable[..., DeviceDetector]]:
    """``device(options=..., driver=..., bundle=..., class_name=...)``; closed afterwards, with nothing left behind."""
    made: list[DeviceDetector] = []

    def build(
        options: DeviceOptions | None = None,
        driver: EmulatedDriver | None = None,
        b: Bundle = bundle,
        class_name: str | None = None,
        **changes: Any,
    ) -> DeviceDetector:
        driver = driver or EmulatedDriver()
        made.append(
            DeviceDetector(
                b,
                precision="fp32",
                class_name=class_name,
                options=options,
                driver=driver,
                networks=changes.get("networks") or networks(driver, b),
                images=images(),
            )
        )
        return made[-1]

    yield build
    for detector in made:
        detector.close()
