"""Orbbec cameras through ``pyorbbecsdk`` (package ``pyorbbecsdk2``, SDK version 2): ``orbbec:[SERIAL]``."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.frame import U8, Frame, Intrinsics
from edge_ad.sensors.aligned import AlignedCamera
from edge_ad.sensors.realsense_modes import read_size
from edge_ad.sensors.uri import Uri
from edge_ad.sensors.vendor import load, stdout_to_stderr

MODULE, EXTRA = "pyorbbecsdk", "orbbec"
POLL_MS = 200
_COLOUR = ("RGB", "BGR", "YUYV", "MJPG")


def open_uri(uri: Uri) -> OrbbecCamera:
    """``orbbec:[SERIAL][?size=&depth=&fps=30&skew=&class=&timeout=5]``. Raises EdgeAdError."""
    uri.only("size", "depth", "fps", "skew", "class", "timeout")
    return OrbbecCamera(uri)


def sdk() -> Any:
    """The SDK's module, told to write no log files. Raises EdgeAdError."""
    ob = load(MODULE, EXTRA)
    with stdout_to_stderr():
        ob.Context.set_logger_to_console(ob.OBLogLevel.NONE)
        ob.Context.set_logger_to_file(ob.OBLogLevel.NONE, "")
    return ob


def connected() -> list[dict[str, str]]:
    """Name and serial of what is plugged in. Raises EdgeAdError without the SDK."""
    ob = sdk()
    with stdout_to_stderr():
        devices = ob.Context().query_devices()
        return [
            {
                "name": str(devices.get_device_name_by_index(i)),
                "serial": str(devices.get_device_serial_number_by_index(i)),
            }
            for i in range(devices.get_count())
        ]


class OrbbecCamera(AlignedCamera):
    """Frames with depth aligned to colour by the SDK. Context manager."""

    maker = "Orbbec"

    def __init__(self, uri: Uri) -> None:
        """Raises EdgeAdError for a wrong option."""
        super().__init__(uri, (640, 480))
        self._depth_size = read_size(uri, "depth", self._size)

    def __enter__(self) -> OrbbecCamera:
        """Find the camera and start both streams. Raises EdgeAdError."""
        self._ob = ob = sdk()
        with stdout_to_stderr():
            self._device = self._find(ob)
            info = self._device.get_device_info()
            self._about = {"name": info.get_name(), "serial": info.get_serial_number()}
            self._about["firmware"] = info.get_firmware_version()
            try:
                pipeline = ob.Pipeline(self._device)
                config = ob.Config()
                config.enable_stream(self._profile(pipeline, "colour", ob.OBSensorType.COLOR_SENSOR, self._size))
                config.enable_stream(self._profile(pipeline, "depth", ob.OBSensorType.DEPTH_SENSOR, self._depth_size))
                config.set_frame_aggregate_output_mode(ob.OBFrameAggregateOutputMode.FULL_FRAME_REQUIRE)
                pipeline.enable_frame_sync()
                pipeline.start(config)
            except (ob.OBError, RuntimeError) as e:
                raise EdgeAdError(
                    f"{self._uri} did not start ({one_line(e)})", "", "unplug it, plug it in again"
                ) from None
        self._pipeline = pipeline
        self._align = ob.AlignFilter(align_to_stream=ob.OBStreamType.COLOR_STREAM)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the streams."""
        pipeline, self._pipeline, self._device = self._pipeline, None, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except (self._ob.OBError, RuntimeError):  # it is gone
                pass

    def temperature_c(self) -> float | None:
        """Degrees Celsius of the camera's processor, or None."""
        try:
            return float(self._device.get_temperature().cpu_temperature) if self._device is not None else None
        except (self._ob.OBError, RuntimeError, AttributeError):
            return None

    def hardware_reset(self) -> None:
        """Reboot the camera and wait until it is listed again. Raises EdgeAdError."""
        serial = self._about.get("serial", self._which)
        with stdout_to_stderr():
            self._find(self._ob).reboot()
        until = time.monotonic() + 30
        time.sleep(3)  # until then the old entry is still listed
        while time.monotonic() < until:
            if serial in [d["serial"] for d in connected()]:
                return
            time.sleep(0.5)
        raise EdgeAdError(f"the Orbbec camera {serial} did not return within 30 s of its reset")

    def _find(self, ob: Any) -> Any:
        devices = ob.Context().query_devices()
        serials = [str(devices.get_device_serial_number_by_index(i)) for i in range(devices.get_count())]
        if not serials:
            raise EdgeAdError(f"no {self._asked} is connected", "one", "check cable and power, run: edge-ad cameras")
        if self._which and self._which not in serials:
            raise EdgeAdError(f"no {self._asked} is connected", f"one of: {', '.join(serials)}")
        return devices.get_device_by_index(serials.index(self._which) if self._which else 0)

    def _profile(self, pipeline: Any, what: str, sensor: Any, size: tuple[int, int]) -> Any:
        ob = self._ob
        profiles = pipeline.get_stream_profile_list(sensor)
        for name in _COLOUR if what == "colour" else ("Y16",):
            try:
                return profiles.get_video_stream_profile(*size, getattr(ob.OBFormat, name), self._fps)
            except (ob.OBError, RuntimeError):
                continue
        there = set()
        for i in range(profiles.get_count()):
            p = profiles.get_stream_profile_by_index(i).as_video_stream_profile()
            there.add(f"{p.get_width()}x{p.get_height()}@{p.get_fps()}")
        found = f"no {what} of {size[0]}x{size[1]} at {self._fps} frames a second"
        raise EdgeAdError(found, f"one of {', '.join(sorted(there))}", "name size=, depth= and fps= of a mode it has")

    def _next(self) -> Any:
        until = time.monotonic() + self._timeout_s
        while time.monotonic() < until:
            frames = self._pipeline.wait_for_frames(POLL_MS)
            if frames is None or frames.get_depth_frame() is None or frames.get_color_frame() is None:
                continue
            aligned = self._align.process(frames)
            aligned = aligned.as_frame_set() if aligned is not None else None
            if aligned is not None and aligned.get_depth_frame() is not None:
                return aligned
        raise EdgeAdError(f"{self._uri} gave no frame for {self._timeout_s:g} s", "colour and depth", "check the cable")

    def _frame(self, frames: Any, sequence: int) -> Frame:
        depth, colour = frames.get_depth_frame(), frames.get_color_frame()
        return self._paired(
            sequence,
            colour_picture(colour),
            depth_picture(depth),
            float(f"{depth.get_depth_scale() / 1000:.6g}"),  # the SDK's scale is in mm
            intrinsics(colour.get_stream_profile().as_video_stream_profile()),
            numbers=(int(depth.get_index()), int(colour.get_index())),
            times=(depth.get_timestamp_us() * 1e-6, colour.get_timestamp_us() * 1e-6),
        )


def depth_picture(frame: Any) -> NDArray[np.uint16]:
    """(H, W) uint16, copied out of a depth frame (Y16)."""
    data = np.frombuffer(np.asarray(frame.get_data()), np.uint16)
    return data.reshape(frame.get_height(), frame.get_width()).copy()


def colour_picture(frame: Any) -> U8:
    """(H, W, 3) uint8 RGB of a colour frame in RGB, BGR, YUYV or MJPG. Raises EdgeAdError for another format."""
    name = str(frame.get_format()).rpartition(".")[2]
    data = np.frombuffer(np.asarray(frame.get_data()), np.uint8)
    size = (int(frame.get_height()), int(frame.get_width()))
    if name == "MJPG":
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if image is None:
            raise EdgeAdError("a colour picture that is no whole JPEG", "", "check the USB cable")
        return np.ascontiguousarray(image[..., ::-1])
    if name == "YUYV":
        return np.asarray(cv2.cvtColor(data.reshape(*size, 2), cv2.COLOR_YUV2RGB_YUY2), np.uint8)
    if name not in ("RGB", "BGR"):
        raise EdgeAdError(f"a colour stream in the format {name}", f"one of: {', '.join(_COLOUR)}")
    image = data.reshape(*size, 3)
    return image.copy() if name == "RGB" else np.ascontiguousarray(image[..., ::-1])


def intrinsics(profile: Any) -> Intrinsics:
    """Intrinsics and OpenCV's distortion (k1, k2, p1, p2, k3, k4, k5, k6) of a stream profile."""
    k, d = profile.get_intrinsic(), profile.get_distortion()
    distortion = tuple(float(v) for v in (d.k1, d.k2, d.p1, d.p2, d.k3, d.k4, d.k5, d.k6))
    return Intrinsics(
        int(k.width),
        int(k.height),
        float(k.fx),
        float(k.fy),
        float(k.cx),
        float(k.cy),
        distortion if any(distortion) else (),
    )
