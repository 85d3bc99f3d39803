"""OAK-D cameras through ``depthai`` (version 3): ``oak:[ID or IP]``."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError, one_line
from edge_ad.frame import Frame, Intrinsics
from edge_ad.sensors.aligned import AlignedCamera
from edge_ad.sensors.uri import Uri
from edge_ad.sensors.vendor import load, stdout_to_stderr

MODULE, EXTRA = "depthai", "oak"
STEREO_SIZE = (640, 400)


def open_uri(uri: Uri) -> OakCamera:
    """``oak:[ID | IP][?size=640x400&fps=30&skew=&class=&timeout=5]``. Raises EdgeAdError."""
    uri.only("size", "fps", "skew", "class", "timeout")
    return OakCamera(uri)


def sdk() -> Any:
    """The module ``depthai``. Raises EdgeAdError."""
    return load(MODULE, EXTRA)


def connected() -> list[dict[str, str]]:
    """Identifier and port of what is plugged in. Raises EdgeAdError without the SDK."""
    dai = sdk()
    with stdout_to_stderr():
        return [{"serial": str(i.getDeviceId()), "name": str(i.name)} for i in dai.Device.getAllAvailableDevices()]


class OakCamera(AlignedCamera):
    """Frames with depth aligned to the undistorted colour picture on the camera itself. Context manager."""

    maker = "OAK"

    def __init__(self, uri: Uri) -> None:
        """Raises EdgeAdError for a wrong option."""
        super().__init__(uri, (640, 400))
        self._queue: Any = None

    def __enter__(self) -> OakCamera:
        """Find the camera, build its pipeline and start it. Raises EdgeAdError."""
        self._dai = dai = sdk()
        there = connected()  # asked first: opening a device that is not there waits for seconds
        known = [d for d in there if self._which in ("", d["serial"], d["name"])]
        if not known and not (self._which and "." in self._which):  # an IP behind a router is not listed
            told = f"one of: {', '.join(d['serial'] for d in there)}" if there else "one"
            raise EdgeAdError(
                f"no {self._asked} is connected", told, "check cable and power, then run: edge-ad cameras"
            )
        try:
            with stdout_to_stderr():
                self._device = dai.Device(self._which) if self._which else dai.Device()
                self._about = {"name": self._device.getDeviceName(), "serial": self._device.getDeviceId()}
                self._build(dai)
                self._pipeline.start()
        except RuntimeError as e:
            self._close()
            found = f"{self._uri} did not start ({one_line(e)})"
            raise EdgeAdError(found, "a mode it has", "name another size= or fps=") from None
        return self

    def _build(self, dai: Any) -> None:
        socket, size = dai.CameraBoardSocket, self._size
        self._pipeline = pipeline = dai.Pipeline(self._device)
        stereo, sync = pipeline.create(dai.node.StereoDepth), pipeline.create(dai.node.Sync)
        colour = pipeline.create(dai.node.Camera).build(socket.CAM_A)
        # Undistorted, so that the intrinsics alone describe the picture and the aligned depth.
        picture = colour.requestOutput(size, dai.ImgFrame.Type.RGB888i, fps=self._fps, enableUndistortion=True)
        for side, target in ((socket.CAM_B, stereo.left), (socket.CAM_C, stereo.right)):
            pipeline.create(dai.node.Camera).build(side).requestOutput(STEREO_SIZE, fps=self._fps).link(target)
        stereo.setRectification(True)
        stereo.setLeftRightCheck(True)  # without it occluded pixels get invented depth
        stereo.setSubpixel(True)
        sync.setSyncThreshold(timedelta(seconds=0.5 / self._fps))
        if self._device.getPlatform() == dai.Platform.RVC4:
            align = pipeline.create(dai.node.ImageAlign)
            stereo.depth.link(align.input)
            picture.link(align.inputAlignTo)
            depth = align.outputAligned
        else:
            picture.link(stereo.inputAlignTo)
            depth = stereo.depth
        picture.link(sync.inputs["colour"])
        depth.link(sync.inputs["depth"])
        self._queue = sync.out.createOutputQueue(maxSize=4, blocking=False)
        matrix = self._device.readCalibration().getCameraIntrinsics(socket.CAM_A, *size)
        self._intrinsics = Intrinsics(
            *size, float(matrix[0][0]), float(matrix[1][1]), float(matrix[0][2]), float(matrix[1][2])
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the pipeline and let go of the camera."""
        self._close()

    def _close(self) -> None:
        pipeline, device = self._pipeline, self._device
        self._pipeline = self._device = self._queue = None
        for end in (getattr(pipeline, "stop", None), getattr(device, "close", None)):
            try:
                if end is not None:
                    end()
            except RuntimeError:  # it is gone
                pass

    def temperature_c(self) -> float | None:
        """Degrees Celsius of the camera's chip, or None."""
        try:
            return float(self._device.getChipTemperature().average) if self._device is not None else None
        except (RuntimeError, AttributeError):
            return None

    def _next(self) -> Any:
        silent = EdgeAdError(
            f"{self._uri} gave no frame for {self._timeout_s:g} s", "colour and depth", "check cable and power"
        )
        try:
            group = self._queue.get(timedelta(seconds=self._timeout_s))
        except (RuntimeError, self._dai.MessageQueue.QueueException):  # the pipeline ended
            raise silent from None
        if group is None:
            raise silent
        return group

    def _frame(self, group: Any, sequence: int) -> Frame:
        depth, colour = group["depth"], group["colour"]
        return self._paired(
            sequence,
            np.ascontiguousarray(colour.getCvFrame()[..., ::-1]),
            np.array(depth.getFrame(), np.uint16),
            0.001,  # depthai's depth is in millimetres
            self._intrinsics,
            numbers=(int(depth.getSequenceNum()), int(colour.getSequenceNum())),
            times=(depth.getTimestampDevice().total_seconds(), colour.getTimestampDevice().total_seconds()),
        )
