"""The RealSense source inside the watched capture process: opened there by its URI alone, its frames come out whole."""

import numpy as np
import pytest

from edge_ad.frame import Frame
from edge_ad.sensors import open_camera
from edge_ad.sensors.capture import WatchedCamera, WatchOptions

pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed (extra 'realsense')")


@pytest.mark.parametrize("align", ["colour", "raw"])
def test_frames_cross_the_process_with_everything_they_carry(align):
    # Loading the SDK on a busy machine takes longer than a line would wait for a frame.
    uri = f"realsense:simulated?feed=synthetic:gear?frames=3&align={align}&class=gear"
    with open_camera(uri) as camera:
        own = list(camera)
    with WatchedCamera(uri, WatchOptions(stall_s=30.0)) as camera:
        seen = [f for f, _ in zip(camera, range(3), strict=False)]
    assert len(seen) == 3
    for a, b in zip(own, seen, strict=True):
        assert isinstance(b, Frame) and np.array_equal(a.colour, b.colour) and np.array_equal(a.depth, b.depth)
        assert (a.intrinsics, a.depth_intrinsics, a.extrinsics) == (b.intrinsics, b.depth_intrinsics, b.extrinsics)
        assert b.metadata["camera"]["serial"] == "SIMULATED" and b.clock == "hardware" and b.class_name == "gear"
