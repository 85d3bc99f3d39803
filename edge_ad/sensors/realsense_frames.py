"""From the SDK's framesets to Frames: copied out at once (the SDK's pool holds 16), with the pairing check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import U8, Extrinsics, Frame, Intrinsics
from edge_ad.sensors.pairing import Pairing

CLOCKS = {"hardware_clock": "hardware", "system_time": "system", "global_time": "global"}
FILTERS = ("spatial", "temporal", "hole_filling")
"""Post-processing of the SDK. Temporal and hole filling invent surface over defects; all are off unless named."""
_METADATA = (("exposure", "actual_exposure"), ("gain", "gain_level"), ("temperature", "temperature"))
_COLOUR: dict[str, Callable[[NDArray[Any]], Any]] = {
    "rgb8": lambda a: a.copy(),
    "bgr8": lambda a: cv2.cvtColor(a, cv2.COLOR_BGR2RGB),
    "rgba8": lambda a: cv2.cvtColor(a, cv2.COLOR_RGBA2RGB),
    "bgra8": lambda a: cv2.cvtColor(a, cv2.COLOR_BGRA2RGB),
    "yuyv": lambda a: cv2.cvtColor(a.view(np.uint8).reshape(*a.shape[:2], 2), cv2.COLOR_YUV2RGB_YUY2),
    "y8": lambda a: cv2.cvtColor(a, cv2.COLOR_GRAY2RGB),
}


@dataclass
class FrameMaker:
    """Callable: frameset -> Frame, or None for a frameset with a stream missing.

    Parameters
    ----------
    align : depth is put on the colour grid by the SDK; else it is handed over raw with its extrinsics.
    skew_s : a frame whose streams lie further apart carries a health reason.
    """

    rs: Any
    source: str
    class_name: str | None
    align: bool
    skew_s: float
    filters: tuple[str, ...] = ()
    static: Mapping[str, Any] = field(default_factory=dict)
    incomplete: int = 0

    def __post_init__(self) -> None:
        self._align = self.rs.align(self.rs.stream.color) if self.align else None
        self._blocks = [getattr(self.rs, f"{name}_filter")() for name in self.filters]
        self.pairing = Pairing(self.skew_s)
        self._sequence = 0

    def __call__(self, frames: Any) -> Frame | None:
        """Convert one frameset. Raises EdgeAdError for formats that are neither colour nor depth."""
        rs = self.rs
        if not (frames.get_depth_frame() and frames.get_color_frame()):
            self.incomplete += 1
            return None
        raw = frames.get_depth_frame()
        for block in self._blocks:
            frames = block.process(frames).as_frameset()
        if self._align is not None:
            frames = self._align.process(frames)
        depth, colour = frames.get_depth_frame(), frames.get_color_frame()
        numbers = (int(raw.get_frame_number()), int(colour.get_frame_number()))
        times = (raw.get_timestamp() / 1e3, colour.get_timestamp() / 1e3)
        clocks = (_clock(raw), _clock(colour))
        flags, health = self.pairing(numbers, times, clocks)
        profile = colour.get_profile().as_video_stream_profile()
        own = raw.get_profile().as_video_stream_profile()
        frame = Frame(
            colour=_colour(colour),
            depth=_depth(depth),
            depth_scale_m=float(f"{raw.get_units():.6g}"),  # the SDK's float32 0.001 is 0.0010000000475
            intrinsics=intrinsics(rs, profile.get_intrinsics()),
            sequence=self._sequence,
            source=self.source,
            name=f"realsense-{self._sequence:06d}",
            class_name=self.class_name,
            depth_timestamp_s=float(times[0]),
            colour_timestamp_s=float(times[1]),
            clock=clocks[0] if clocks[0] == clocks[1] else "mixed",
            flags=flags + tuple(f"filter:{name}" for name in self.filters),
            health=health,
            depth_intrinsics=None if self.align else intrinsics(rs, own.get_intrinsics()),
            extrinsics=None if self.align else extrinsics(own.get_extrinsics_to(profile)),
            metadata={**self.static, **frame_metadata(rs, raw, colour), "depth_number": numbers[0]}
            | {"colour_number": numbers[1]},
        )
        self._sequence += 1
        return frame


def _clock(frame: Any) -> str:
    return CLOCKS.get(frame.get_frame_timestamp_domain().name, "none")


def _depth(frame: Any) -> NDArray[np.uint16]:
    data = np.asanyarray(frame.get_data())
    if data.dtype != np.uint16 or data.ndim != 2:
        raise EdgeAdError(f"a depth stream of {data.dtype}, shape {data.shape}", "16 bit depth (z16)")
    return data.copy()


def _colour(frame: Any) -> U8:
    name = frame.get_profile().format().name
    if name not in _COLOUR:
        raise EdgeAdError(f"a colour stream in the format {name}", f"one of: {', '.join(_COLOUR)}")
    return np.ascontiguousarray(_COLOUR[name](np.asanyarray(frame.get_data())))


def frame_metadata(rs: Any, depth: Any, colour: Any) -> dict[str, Any]:
    """Exposure, gain and temperature of both streams and the laser's power, where the device tells them."""
    found: dict[str, Any] = {}
    for key, frame in (("depth", depth), ("colour", colour)):
        for name, field_name in _METADATA:
            which = getattr(rs.frame_metadata_value, field_name, None)
            if which is not None and frame.supports_frame_metadata(which):
                found[f"{key}_{name}"] = int(frame.get_frame_metadata(which))
    laser = rs.frame_metadata_value.frame_laser_power
    if depth.supports_frame_metadata(laser):
        found["laser_power"] = int(depth.get_frame_metadata(laser))
    return found


def intrinsics(rs: Any, k: Any) -> Intrinsics:
    """The SDK's intrinsics as ours, with OpenCV's distortion coefficients."""
    model, coeffs = k.model.name, tuple(float(c) for c in k.coeffs)
    return _intrinsics(model, coeffs, k.width, k.height, k.fx, k.fy, k.ppx, k.ppy)


@lru_cache(maxsize=16)
def _intrinsics(
    model: str, coeffs: tuple[float, ...], width: int, height: int, fx: float, fy: float, ppx: float, ppy: float
) -> Intrinsics:
    distortion = opencv_distortion(model, coeffs, width, height, (fx, fy, ppx, ppy)) if any(coeffs) else ()
    return Intrinsics(width, height, float(fx), float(fy), float(ppx), float(ppy), distortion)


def extrinsics(e: Any) -> Extrinsics:
    """The SDK's extrinsics (rotation column by column) as ours (row by row)."""
    rotation = np.asarray(e.rotation, np.float64).reshape(3, 3).T
    return Extrinsics(tuple(float(v) for v in rotation.ravel()), tuple(float(v) for v in e.translation))


def opencv_distortion(
    model: str, coeffs: tuple[float, ...], width: int, height: int, k: tuple[float, float, float, float]
) -> tuple[float, ...]:
    """OpenCV's (k1, k2, p1, p2, k3) for a distortion of librealsense.

    Brown-Conrady is OpenCV's own. The modified and the "inverse" model (the D455's colour) differ in the tangential
    part alone, which the SDK applies to the radially moved point (``rs2_project_point_to_pixel``): OpenCV's
    coefficients come from a linear least-squares fit over the image.

    Raises InvalidFrame for a model without such a form, or when the fit misses by more than 0.1 pixels.
    """
    if model in ("none", "brown_conrady"):
        return coeffs if model == "brown_conrady" else ()
    if model not in ("inverse_brown_conrady", "modified_brown_conrady"):
        raise InvalidFrame(f"the camera's distortion model {model}", "Brown-Conrady, plain, modified or inverse")
    fx, fy, ppx, ppy = k
    u, v = np.meshgrid(np.linspace(0, width - 1, 33), np.linspace(0, height - 1, 25))
    x, y = ((u - ppx) / fx).ravel(), ((v - ppy) / fy).ravel()
    k1, k2, p1, p2, k3 = coeffs[:5]
    r2 = x * x + y * y
    f = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    mx, my = x * f, y * f
    seen_x, seen_y = mx + 2 * p1 * mx * my + p2 * (r2 + 2 * mx * mx), my + 2 * p2 * mx * my + p1 * (r2 + 2 * my * my)
    rows_x = np.stack([x * r2, x * r2**2, 2 * x * y, r2 + 2 * x * x, x * r2**3], axis=1)
    rows_y = np.stack([y * r2, y * r2**2, r2 + 2 * y * y, 2 * x * y, y * r2**3], axis=1)
    system, wanted = np.concatenate([rows_x, rows_y]), np.concatenate([seen_x - x, seen_y - y])
    found = np.linalg.lstsq(system, wanted, rcond=None)[0]
    worst = float(np.abs(system @ found - wanted).max()) * max(fx, fy)
    if worst > 0.1:
        raise InvalidFrame(f"the camera's distortion is met only to {worst:.2f} pixels", "0.1 pixels")
    return tuple(float(c) for c in found)
