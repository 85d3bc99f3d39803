"""What is set on a RealSense camera before and after it starts: preset, emitter, depth units, exposure.

Every value set is read back into the frames' metadata. A setting that the camera does not have is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.sensors.realsense_sdk import clean
from edge_ad.sensors.uri import Uri

EXPOSURE_MODES = ("settle", "auto")
STABLE_FRAMES, STABLE_SHARE = 5, 0.02
"""Exposure counts as settled when it moved by at most this share over so many frames."""


@dataclass(frozen=True)
class Settings:
    """Options of the URI. ``exposure``: ``"settle"`` (let it settle, then fix it), ``"auto"`` (leave it running) or the
    depth sensor's exposure in the SDK's units (microseconds); ``colour_exposure`` likewise for colour (100
    microseconds on most models)."""

    preset: Path | None = None
    emitter: int | None = None
    laser: float | None = None
    units: float | None = None
    exposure: str = "settle"
    colour_exposure: float | None = None
    settle: int = 30


def read_settings(uri: Uri) -> Settings:
    """Settings from a URI's options. Raises EdgeAdError."""
    exposure = uri.text("exposure") or "settle"
    if exposure not in EXPOSURE_MODES:
        uri.number("exposure", 0, 1, 1e7)
    preset = uri.text("preset")
    return Settings(
        preset=Path(preset) if preset else None,
        emitter=None if uri.text("emitter") is None else int(uri.switch("emitter")),
        laser=None if uri.text("laser") is None else uri.number("laser", 0, 0, 1000),
        units=None if uri.text("units") is None else uri.number("units", 0, 1e-6, 0.1),
        exposure=exposure,
        colour_exposure=None if uri.text("colour_exposure") is None else uri.number("colour_exposure", 0, 1, 1e7),
        settle=uri.integer("settle", 30),
    )


def apply_before_start(rs: Any, device: Any, settings: Settings) -> dict[str, Any]:
    """Set everything but the exposure that is still to settle. Returns what was set. Raises EdgeAdError."""
    told: dict[str, Any] = {}
    if settings.preset is not None:
        told["preset"] = str(settings.preset)
        told["preset_sha256"] = load_preset(rs, device, settings.preset)
    depth, colour = sensors(rs, device)
    option = rs.option
    for value, name, sensor in (
        (settings.emitter, "emitter_enabled", depth),
        (settings.laser, "laser_power", depth),
        (settings.units, "depth_units", depth),
    ):
        if value is not None:
            told[name] = set_option(sensor, getattr(option, name), name, float(value))
    for key, sensor in (("exposure", depth), ("colour_exposure", colour)):
        given = settings.exposure if key == "exposure" else settings.colour_exposure
        if given in EXPOSURE_MODES or given is None:
            continue
        if sensor is not None and sensor.supports(option.enable_auto_exposure):
            set_option(sensor, option.enable_auto_exposure, "enable_auto_exposure", 0)
        told[key] = set_option(sensor, option.exposure, "exposure", float(given))
    return told


def load_preset(rs: Any, device: Any, path: Path) -> str:
    """Load a preset file (JSON, as RealSense Viewer saves it). Returns its SHA-256. Raises EdgeAdError."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
        json.loads(text)
    except OSError as e:
        raise EdgeAdError(
            f"preset {path} cannot be read ({e.strerror})", "a file that RealSense Viewer saved"
        ) from None
    except ValueError as e:
        raise EdgeAdError(f"preset {path} is not JSON ({e})", "a file that RealSense Viewer saved") from None
    try:
        rs.serializable_device(device).load_json(text)
    except RuntimeError as e:
        raise EdgeAdError(
            f"this camera does not take the preset {path} ({clean(e)})", "a preset of the same model"
        ) from None
    return hashlib.sha256(data).hexdigest()


def sensors(rs: Any, device: Any) -> tuple[Any, Any]:
    """(depth sensor, colour sensor) of a device, each None where it has none; on a D405 they are one and the same."""
    depth = colour = None
    for sensor in device.query_sensors():
        kinds = {p.stream_type() for p in sensor.get_stream_profiles()}
        depth = sensor if depth is None and rs.stream.depth in kinds else depth
        colour = sensor if colour is None and rs.stream.color in kinds else colour
    return depth, colour


def set_option(sensor: Any, option: Any, name: str, value: float) -> float:
    """Set an option and return what the camera made of it. Raises EdgeAdError naming the option and its range."""
    if sensor is None or not sensor.supports(option) or sensor.is_option_read_only(option):
        raise EdgeAdError(f"this camera has no option {name} that can be set", "", "leave it away")
    limits = sensor.get_option_range(option)
    if not limits.min <= value <= limits.max:
        raise EdgeAdError(f"{name} = {value:g}", f"{limits.min:g} to {limits.max:g} on this camera")
    try:
        sensor.set_option(option, value)
        return float(sensor.get_option(option))
    except RuntimeError as e:
        raise EdgeAdError(f"{name} = {value:g} was refused by the camera ({clean(e)})") from None


def settled(history: list[tuple[float, float]]) -> bool:
    """Whether (depth, colour) exposures have stayed within ``STABLE_SHARE`` over the last ``STABLE_FRAMES``."""
    last = history[-STABLE_FRAMES:]
    if len(last) < STABLE_FRAMES:
        return False
    return all(max(column) - min(column) <= STABLE_SHARE * max(max(column), 1e-9) for column in zip(*last, strict=True))


def fix_exposure(rs: Any, device: Any, metadata: dict[str, Any]) -> dict[str, Any]:
    """Turn automatic exposure and white balance off and hold what the last frame was taken with.

    metadata : the frame's (``depth_exposure``, ``depth_gain``, ``colour_exposure``, ``colour_gain``; the SDK gives
    them in the units of the options). Returns what was fixed.
    """
    told: dict[str, Any] = {}
    depth, colour = sensors(rs, device)
    done: list[str] = []
    for key, sensor in (("depth", depth), ("colour", colour)):
        if sensor is None or sensor.name in done or not _on(sensor, rs.option.enable_auto_exposure):
            continue
        done.append(sensor.name)
        values = {name: metadata.get(f"{key}_{name}") for name in ("exposure", "gain")}
        sensor.set_option(rs.option.enable_auto_exposure, 0)
        for name, value in values.items():
            option = getattr(rs.option, name)
            if value is not None and sensor.supports(option) and not sensor.is_option_read_only(option):
                limits = sensor.get_option_range(option)
                told[f"{key}_{name}"] = set_option(sensor, option, name, min(max(value, limits.min), limits.max))
        if _on(sensor, rs.option.enable_auto_white_balance):
            sensor.set_option(rs.option.enable_auto_white_balance, 0)
            told["white_balance"] = float(sensor.get_option(rs.option.white_balance))
    return told


def _on(sensor: Any, option: Any) -> bool:
    return bool(sensor.supports(option) and not sensor.is_option_read_only(option) and sensor.get_option(option) > 0)
