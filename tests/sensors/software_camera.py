"""The SDK's software device in the place of a connected RealSense camera, and pictures that tell their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from edge_ad.frame import Intrinsics
from edge_ad.sensors import realsense_sdk
from edge_ad.sensors.realsense_simulated import SimulatedDevice

WIDTH, HEIGHT = 320, 240
INTRINSICS = Intrinsics(WIDTH, HEIGHT, 300.0, 301.0, 159.5, 119.5)
OPTIONS = {
    "depth": {
        "exposure": (1, 200000, 1, 8500),
        "gain": (16, 248, 1, 16),
        "enable_auto_exposure": (0, 1, 1, 1),
        "emitter_enabled": (0, 1, 1, 1),
        "laser_power": (0, 360, 30, 150),
        "depth_units": (1e-6, 0.01, 1e-6, 1e-4),
        "asic_temperature": (-40, 125, 1, 41),
    },
    "colour": {
        "exposure": (1, 10000, 1, 156),
        "enable_auto_exposure": (0, 1, 1, 1),
        "enable_auto_white_balance": (0, 1, 1, 1),
        "white_balance": (2800, 6500, 10, 4600),
    },
}


def pictures(number: int) -> tuple[np.ndarray, np.ndarray]:
    """(depth, colour) of frame ``number``: a step before a plane, brightness and distance by the number."""
    depth = np.full((HEIGHT, WIDTH), 6000, np.uint16)
    depth[80:160, 100:200] = 5000 + number
    return depth, np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8)


def software_device(*, baseline_m: float = 0.015, fps: int = 30) -> SimulatedDevice:
    import pyrealsense2 as rs

    return SimulatedDevice(rs, INTRINSICS, fps, baseline_m, OPTIONS)


def connect(monkeypatch: pytest.MonkeyPatch, simulated: SimulatedDevice) -> None:
    """What ``realsense:`` finds on the USB bus from now on."""
    import pyrealsense2 as rs

    class Context:
        def query_devices(self) -> list[Any]:
            return [simulated.device]

    def pipeline(where: Any, serial: str) -> tuple[Any, Any]:
        assert isinstance(where, Context) and serial == "SIMULATED"
        made = rs.pipeline()
        made.set_device(simulated.device)
        return made, rs.config()

    monkeypatch.setattr(realsense_sdk, "context", Context)
    monkeypatch.setattr(realsense_sdk, "pipeline", pipeline)


@contextmanager
def streaming(simulated: SimulatedDevice, *, per_s: float = 100, exposure: Any = None) -> Iterator[threading.Event]:
    """Frames 1, 2, 3, ... pushed by a thread, as hardware does; setting the event stops them."""
    stop = threading.Event()

    def push() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            depth, colour = pictures(number)
            metadata = {"actual_exposure": exposure(number), "gain_level": 20} if exposure else None
            simulated.push(depth, colour, number, metadata=metadata)
            time.sleep(1 / per_s)

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
