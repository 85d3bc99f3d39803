"""Orbbec and OAK-D: every name of the makers' modules that is used exists in them; their frames, played by fakes.

No camera was at hand: what is tested is the code around the SDKs, and that the SDKs have what it calls.
"""

import functools
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Intrinsics
from edge_ad.sensors import oak, open_camera, orbbec, vendor

ORBBEC = """
Context.query_devices Context.set_logger_to_console Context.set_logger_to_file DeviceList.get_count
DeviceList.get_device_by_index DeviceList.get_device_name_by_index
DeviceList.get_device_serial_number_by_index Device.get_device_info Device.reboot Device.get_temperature
DeviceInfo.get_name DeviceInfo.get_serial_number DeviceInfo.get_firmware_version Pipeline.start
Pipeline.stop Pipeline.wait_for_frames Pipeline.enable_frame_sync Pipeline.get_stream_profile_list
Config.enable_stream Config.set_frame_aggregate_output_mode StreamProfileList.get_count
StreamProfileList.get_stream_profile_by_index StreamProfileList.get_video_stream_profile
VideoStreamProfile.get_intrinsic VideoStreamProfile.get_distortion VideoStreamProfile.get_width
VideoStreamProfile.get_height VideoStreamProfile.get_fps VideoStreamProfile.get_format AlignFilter.process
FrameSet.get_depth_frame FrameSet.get_color_frame Frame.as_frame_set DepthFrame.get_depth_scale
DepthFrame.get_data DepthFrame.get_timestamp_us DepthFrame.get_index ColorFrame.get_format
ColorFrame.get_stream_profile StreamProfile.as_video_stream_profile OBFormat.RGB OBFormat.BGR OBFormat.MJPG
OBFormat.YUYV OBFormat.Y16 OBSensorType.COLOR_SENSOR OBSensorType.DEPTH_SENSOR OBStreamType.COLOR_STREAM
OBFrameAggregateOutputMode.FULL_FRAME_REQUIRE OBLogLevel.NONE OBError
OBDeviceTemperature.cpu_temperature
"""
OAK = """
Device.getAllAvailableDevices Device.readCalibration Device.getPlatform Device.getDeviceId
Device.getDeviceName Device.getChipTemperature Device.close Pipeline.create Pipeline.start Pipeline.stop
node.Camera.build node.Camera.requestOutput node.StereoDepth.left node.StereoDepth.right
node.StereoDepth.depth node.StereoDepth.inputAlignTo node.StereoDepth.setLeftRightCheck
node.StereoDepth.setSubpixel node.StereoDepth.setRectification node.ImageAlign.input
node.ImageAlign.inputAlignTo node.ImageAlign.outputAligned node.Sync.inputs node.Sync.out
node.Sync.setSyncThreshold CameraBoardSocket.CAM_A CameraBoardSocket.CAM_B CameraBoardSocket.CAM_C
ImgFrame.Type.RGB888i ImgFrame.getCvFrame ImgFrame.getFrame ImgFrame.getSequenceNum
ImgFrame.getTimestampDevice Node.Output.createOutputQueue Node.Output.link MessageQueue.get
MessageQueue.QueueException CalibrationHandler.getCameraIntrinsics Platform.RVC4 DeviceInfo.name
DeviceInfo.getDeviceId
"""


@pytest.mark.parametrize(("module", "names"), [(orbbec, ORBBEC), (oak, OAK)], ids=["orbbec", "oak"])
def test_every_name_used_is_in_the_sdk(module, names):
    pytest.importorskip(module.MODULE, reason=f"{module.MODULE} is not installed (extra '{module.EXTRA}')")
    sdk = module.sdk()
    for name in names.split():
        functools.reduce(getattr, name.split("."), sdk)
    source = Path(module.__file__).read_text(encoding="utf-8")
    assert [name for name in names.split() if name.rpartition(".")[2] not in source] == []


@pytest.mark.parametrize("module", [orbbec, oak], ids=["orbbec", "oak"])
def test_no_camera_and_clean_stdout(module, tmp_path):
    pytest.importorskip(module.MODULE, reason=f"{module.MODULE} is not installed (extra '{module.EXTRA}')")
    code = (
        f"from edge_ad.sensors import {module.EXTRA} as m, open_camera\n"
        "assert m.connected() == [], 'a camera is connected'\n"
        f"try:\n    open_camera('{module.EXTRA}:').__enter__()\nexcept Exception as e:\n    print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    if "a camera is connected" in done.stderr:
        pytest.skip("a camera is connected")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("EdgeAdError no O") and "is connected" in done.stdout
    assert done.stdout.count("\n") == 1  # what the SDK prints went elsewhere
    assert list(tmp_path.iterdir()) == []  # and no log files


@pytest.mark.parametrize("uri", ["orbbec:?size=3", "orbbec:?loop=1", "oak:?fps=0", "oak:?depth=640x400"])
def test_options_that_are_refused(uri):
    with pytest.raises(EdgeAdError):
        open_camera(uri)


def test_a_module_that_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "depthai", None)
    with pytest.raises(EdgeAdError, match=r"edge-ad\[oak\]"):
        vendor.load("depthai", "oak")


# -- Orbbec -----------------------------------------------------------------------------------------------------------


def orbbec_frame(form, data, height=4, width=6, **more):
    k = SimpleNamespace(width=width, height=height, fx=5.0, fy=5.5, cx=2.5, cy=1.5)
    d = SimpleNamespace(k1=0.1, k2=0.2, k3=0.3, k4=0.4, k5=0.5, k6=0.6, p1=0.01, p2=0.02)
    profile = SimpleNamespace(get_intrinsic=lambda: k, get_distortion=lambda: d)
    values = {
        "get_format": lambda: f"OBFormat.{form}",
        "get_data": lambda: data,
        "get_height": lambda: height,
        "get_width": lambda: width,
        "get_timestamp_us": lambda: 1_500_000,
        "get_index": lambda: 7,
        "get_depth_scale": lambda: 0.1,
        "get_stream_profile": lambda: SimpleNamespace(as_video_stream_profile=lambda: profile),
        **more,
    }
    return SimpleNamespace(**values)


def test_orbbec_pictures_in_every_format():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    assert np.array_equal(orbbec.colour_picture(orbbec_frame("RGB", rgb.ravel())), rgb)
    assert np.array_equal(orbbec.colour_picture(orbbec_frame("BGR", rgb[..., ::-1].ravel())), rgb)
    grey = np.full((4, 6, 3), 120, np.uint8)
    jpeg = cv2.imencode(".jpg", grey)[1].ravel()
    assert np.abs(orbbec.colour_picture(orbbec_frame("MJPG", jpeg)).astype(int) - 120).max() < 3
    yuyv = np.tile(np.array([120, 128], np.uint8), 4 * 6)
    assert np.abs(orbbec.colour_picture(orbbec_frame("YUYV", yuyv)).astype(int) - 121).max() < 3
    with pytest.raises(EdgeAdError, match="H264"):
        orbbec.colour_picture(orbbec_frame("H264", rgb.ravel()))
    with pytest.raises(EdgeAdError, match="no whole JPEG"):
        orbbec.colour_picture(orbbec_frame("MJPG", np.zeros(40, np.uint8)))
    depth = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert np.array_equal(orbbec.depth_picture(orbbec_frame("Y16", depth.view(np.uint8).ravel())), depth)


def test_orbbec_frames_carry_scale_intrinsics_and_pairing():
    depth = np.full((4, 6), 4000, np.uint16)
    frames = SimpleNamespace(
        get_depth_frame=lambda: orbbec_frame("Y16", depth.view(np.uint8).ravel()),
        get_color_frame=lambda: orbbec_frame("RGB", np.zeros(72, np.uint8), get_timestamp_us=lambda: 1_700_000),
    )
    camera = open_camera("orbbec:?fps=30&class=nut")
    frame = camera._frame(frames, 0)
    assert frame.depth_scale_m == 1e-4  # 0.1 mm a unit
    assert frame.intrinsics == Intrinsics(6, 4, 5.0, 5.5, 2.5, 1.5, (0.1, 0.2, 0.01, 0.02, 0.3, 0.4, 0.5, 0.6))
    assert frame.health == ("colour is 200 ms ahead of depth (limit 33 ms)",) and frame.class_name == "nut"
    assert "repeated" in camera._frame(frames, 1).flags


# -- OAK --------------------------------------------------------------------------------------------------------------


def oak_picture(array, number, seconds):
    return SimpleNamespace(
        getCvFrame=lambda: array,
        getFrame=lambda: array,
        getSequenceNum=lambda: number,
        getTimestampDevice=lambda: timedelta(seconds=seconds),
    )


def test_oak_frames_and_silence():
    pytest.importorskip("depthai", reason="depthai is not installed (extra 'oak')")
    camera = open_camera("oak:?fps=10&timeout=0.2")
    camera._intrinsics = Intrinsics(6, 4, 5.0, 5.0, 2.5, 1.5)
    bgr = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    depth = np.arange(24, dtype=np.uint16).reshape(4, 6)
    group = {"colour": oak_picture(bgr, 3, 1.02), "depth": oak_picture(depth, 3, 1.0)}
    frame = camera._frame(group, 0)
    assert np.array_equal(frame.colour, bgr[..., ::-1]) and np.array_equal(frame.depth, depth)
    assert frame.depth_scale_m == 0.001 and frame.health == () and frame.depth_timestamp_s == 1.0
    camera._dai = oak.sdk()
    queue_error = camera._dai.MessageQueue.QueueException

    def closed(timeout):
        raise queue_error("closed")

    for get in (lambda timeout: None, closed):
        camera._queue = SimpleNamespace(get=get)
        with pytest.raises(EdgeAdError, match=r"gave no frame for 0\.2 s"):
            next(iter(camera))
