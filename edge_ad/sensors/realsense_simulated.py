"""A RealSense camera without hardware: the SDK's software device, fed with the frames of any other source.

Everything behind it is the production path: pipeline, pairing, alignment, recorder. The depth stream has a grid of its
own beside the colour camera, so that the SDK really aligns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.sensors import BrokenFrame, Camera

UNITS_M = 1e-4
SERIAL = "SIMULATED"


class SimulatedDevice:
    """Software device with a depth and a colour sensor.

    Parameters
    ----------
    rs : the SDK's module. intrinsics : of the colour camera; the depth camera sees a little more with as many pixels.
    fps : frames a second that it claims. baseline_m : distance of the two cameras.
    options : what its sensors let themselves be set, ``{"depth" | "colour": {option: (min, max, step, default)}}``.
    """

    def __init__(
        self,
        rs: Any,
        intrinsics: Intrinsics,
        fps: int = 30,
        baseline_m: float = 0.015,
        options: dict[str, dict[str, tuple[float, float, float, float]]] | None = None,
    ) -> None:
        self._rs = rs
        self.fps = fps
        self.intrinsics = k = intrinsics
        # Two equal cameras would put every pixel's corner on a tie of the SDK's rounding: whole rows get lost.
        wide = (0.93 * k.fx, 0.94 * k.fy, k.ppx + 0.23, k.ppy - 0.31)
        self.depth_intrinsics = Intrinsics(k.width, k.height, *wide)
        self.depth_to_colour = Extrinsics(translation=(-baseline_m, 0.0, 0.0))
        self.device = rs.software_device()
        self.device.register_info(rs.camera_info.name, "Simulated RealSense")
        self.device.register_info(rs.camera_info.serial_number, SERIAL)
        self._depth, self._colour = self.device.add_sensor("Stereo Module"), self.device.add_sensor("RGB Camera")
        for key, sensor in (("depth", self._depth), ("colour", self._colour)):
            for name, limits in (options or {}).get(key, {}).items():
                span = rs.option_range()  # its constructor takes step and default in each other's place
                span.min, span.max, span.step, span.default = limits
                sensor.add_option(getattr(rs.option, name), span, True)
                sensor.set_option(getattr(rs.option, name), limits[3])
        if "depth_units" not in (options or {}).get("depth", {}):
            self._depth.add_read_only_option(rs.option.depth_units, UNITS_M)
        # is_default=True: a stream that is not is invisible to the pipeline.
        self._depth_profile = self._depth.add_video_stream(self._stream(rs.stream.depth, rs.format.z16, 2, 1), True)
        self._colour_profile = self._colour.add_video_stream(self._stream(rs.stream.color, rs.format.rgb8, 3, 2), True)
        between = rs.extrinsics()
        between.rotation, between.translation = [1, 0, 0, 0, 1, 0, 0, 0, 1], list(self.depth_to_colour.translation)
        self._depth_profile.register_extrinsics_to(self._colour_profile, between)

    def _stream(self, kind: Any, form: Any, bytes_per_pixel: int, uid: int) -> Any:
        rs, k = self._rs, self._rs.intrinsics()
        own = self.depth_intrinsics if kind == rs.stream.depth else self.intrinsics
        k.width, k.height, k.fx, k.fy, k.ppx, k.ppy = own.width, own.height, own.fx, own.fy, own.ppx, own.ppy
        k.model, k.coeffs = rs.distortion.brown_conrady, [0] * 5
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = kind, 0, uid, form, bytes_per_pixel
        stream.width, stream.height, stream.fps, stream.intrinsics = own.width, own.height, self.fps, k
        return stream

    def push(
        self,
        depth: NDArray[np.uint16] | None,
        colour: NDArray[np.uint8] | None,
        number: int,
        *,
        colour_number: int | None = None,
        metadata: dict[str, int] | None = None,
    ) -> None:
        """Inject one picture of each stream (None: of one alone), numbered and timed by ``number / fps``.

        metadata : ``actual_exposure``, ``gain_level``, ... of both pictures.
        """
        second = number if colour_number is None else colour_number
        if depth is not None:
            self._push(self._depth, self._depth_profile, np.ascontiguousarray(depth, np.uint16), 2, number, metadata)
        if colour is not None:
            self._push(self._colour, self._colour_profile, np.ascontiguousarray(colour, np.uint8), 3, second, metadata)

    def _push(
        self, sensor: Any, profile: Any, pixels: NDArray[Any], size: int, number: int, metadata: dict[str, int] | None
    ) -> None:
        rs, k = self._rs, self.intrinsics
        if pixels.shape[:2] != (k.height, k.width):  # the SDK would read out of bounds
            raise EdgeAdError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]}", f"{k.width} x {k.height}")
        frame = rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp = pixels, k.width * size, size
        frame.timestamp, frame.domain = number * 1000 / self.fps, rs.timestamp_domain.hardware_clock
        frame.frame_number, frame.profile = number, profile.as_video_stream_profile()
        if size == 2:
            frame.depth_units = UNITS_M
        # Milli-frames a second: without it the SDK does not pair the streams.
        sensor.set_metadata(rs.frame_metadata_value.actual_fps, self.fps * 1000)
        for name, value in (metadata or {}).items():
            sensor.set_metadata(getattr(rs.frame_metadata_value, name), value)
        sensor.on_video_frame(frame)


class Feed:
    """Pushes the next frame of a source into a simulated device, on the colour and on the depth camera's grid."""

    def __init__(self, rs: Any, camera: Camera, fps: int, baseline_m: float) -> None:
        frames: Iterator[Frame | BrokenFrame] = iter(camera)
        first = next((f for f in frames if isinstance(f, Frame)), None)
        if first is None or first.intrinsics is None:
            raise EdgeAdError(f"{camera.describe()} feeds no frame with intrinsics", "folder: or synthetic:")
        k = first.intrinsics
        self._frames = chain([first], (f for f in frames if isinstance(f, Frame)))
        self.simulated = SimulatedDevice(rs, Intrinsics(k.width, k.height, k.fx, k.fy, k.ppx, k.ppy), fps, baseline_m)
        self._number = 0

    def __call__(self) -> bool:
        """Push one frame of each stream; False when the source has ended."""
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._number += 1
        self.simulated.push(depth_view(frame, self.simulated), frame.colour, self._number)
        return True


def depth_view(frame: Frame, device: SimulatedDevice) -> NDArray[np.uint16]:
    """(H, W) uint16: the frame's depth as the simulated depth camera beside the colour camera sees it."""
    from edge_ad.runtime.geometry import frame_xyz
    from edge_ad.runtime.registration import register_depth

    z = np.rint(frame_xyz(frame)[..., 2] / UNITS_M)
    if z.max() > np.iinfo(np.uint16).max:
        raise InvalidFrame(f"depth of {z.max() * UNITS_M:.1f} m", "below 6.5 m for the simulated camera")
    back = Extrinsics(translation=tuple(-t for t in device.depth_to_colour.translation))
    depth = register_depth(z.astype(np.uint16), UNITS_M, device.intrinsics, device.depth_intrinsics, back)
    return np.asarray(depth, np.uint16)
