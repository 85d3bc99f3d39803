"""RealSense cameras and recordings through librealsense: ``realsense:``, ``realsense:SERIAL``, ``realsense:FILE``."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors import open_camera, realsense_sdk
from edge_ad.sensors.realsense_frames import FrameMaker, frame_metadata
from edge_ad.sensors.realsense_modes import check_mode
from edge_ad.sensors.realsense_options import Options, read_options
from edge_ad.sensors.realsense_settings import apply_before_start, fix_exposure, sensors, settled
from edge_ad.sensors.uri import Uri

POLL_MS, DRAIN_MS = 100, 1000
"""A recording says that it has ended before its last frames are through the SDK's queues: they are waited for."""


def open_uri(uri: Uri) -> RealSenseCamera:
    """``realsense:[SERIAL | FILE.bag | FILE.db3 | simulated][?options]`` (docs/cameras.md). Raises EdgeAdError."""
    return RealSenseCamera(str(uri), read_options(uri))


class RealSenseCamera:
    """Frames of a camera, of a recording (every frame, or in real time) or of the SDK's software device.

    ``incomplete``: framesets that lacked a stream; ``missed``: numbers that the camera left out; both are counted.
    A frame whose colour and depth do not belong together carries a health reason.
    """

    def __init__(self, uri: str, options: Options) -> None:
        self._uri = uri
        self._options = options
        self._stack = ExitStack()
        self._info: dict[str, Any] = {}
        self._feed: Callable[[], bool] | None = None
        self._make: FrameMaker | None = None
        self._pipeline: Any = None
        self._playback: Any = None
        self._device: Any = None
        self._partial: Path | None = None

    def __enter__(self) -> RealSenseCamera:
        """Find the device, set it, start the streams and let the exposure settle. Raises EdgeAdError."""
        self._rs = rs = realsense_sdk.sdk()
        try:
            device = {"live": self._live, "file": self._file, "simulated": self._simulated}[self._options.kind](rs)
            self._device = device
            self._settle(device)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the streams and let go of the device; a raw recording gets its name when nothing failed."""
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the recording ends; a live camera that gives none for ``timeout`` s raises EdgeAdError."""
        assert self._make is not None, "used outside of its with block"
        while True:
            frames = self._next()
            if frames is None:
                return
            frame = self._make(frames)
            del frames  # the SDK's pool is small: nothing of it is kept while the caller works
            if frame is not None:
                yield frame

    @property
    def missed(self) -> int:
        """Frames that the camera numbered and did not deliver."""
        return self._make.pairing.missed if self._make else 0

    @property
    def incomplete(self) -> int:
        """Framesets that came without depth or without colour."""
        return self._make.incomplete if self._make else 0

    def temperature_c(self) -> float | None:
        """Degrees Celsius of the depth sensor's chip, or None where the camera does not tell."""
        if self._device is None or self._options.kind != "live":
            return None
        depth, _ = sensors(self._rs, self._device)
        try:
            option = self._rs.option.asic_temperature
            return float(depth.get_option(option)) if depth is not None and depth.supports(option) else None
        except RuntimeError:  # asked while the camera is not answering
            return None

    def hardware_reset(self) -> None:
        """Reset the device and wait until it can be opened again. Raises EdgeAdError when it does not come back."""
        if self._options.kind != "live":
            raise EdgeAdError(f"{self._uri} cannot be reset", "a camera")
        realsense_sdk.reset(self._options.target or str(self._info.get("serial", "")))

    def describe(self) -> str:
        """One line for people."""
        o = self._options
        named = " ".join(str(self._info[k]) for k in ("name", "serial", "firmware") if self._info.get(k))
        mode = {"file": "a recording, " + ("in real time" if o.realtime else "every frame")}.get(
            o.kind, f"{o.colour_size[0]}x{o.colour_size[1]} at {o.fps} frames a second"
        )
        return f"{self._uri}: {named or 'RealSense'}, {mode}"

    # -- opening ------------------------------------------------------------------------------------------------------

    def _live(self, rs: Any) -> Any:
        o = self._options
        context = realsense_sdk.context()
        device, found = realsense_sdk.find_device(context, o.target)
        self._info = dict(found)
        self._info["settings"] = apply_before_start(rs, device, o.settings)
        check_mode(rs, device, self._info, o.colour_size, o.depth_size, o.fps)
        pipeline, config = realsense_sdk.pipeline(context, found.get("serial", ""))
        self._start(rs, config, pipeline)
        return device

    def _simulated(self, rs: Any) -> Any:
        from edge_ad.sensors.realsense_simulated import Feed

        o = self._options
        feed = Feed(rs, self._stack.enter_context(open_camera(o.feed)), o.fps, o.baseline_m)
        self._feed = feed
        k = feed.simulated.intrinsics
        size = (k.width, k.height)
        self._options = replace(o, colour_size=size, depth_size=size)
        pipeline = rs.pipeline()
        pipeline.set_device(feed.simulated.device)
        self._info = {"name": "Simulated RealSense", "serial": "SIMULATED", "settings": {}}
        self._start(rs, rs.config(), pipeline)
        return feed.simulated.device

    def _start(self, rs: Any, config: Any, pipeline: Any) -> None:
        o = self._options
        config.enable_stream(rs.stream.depth, *o.depth_size, rs.format.z16, o.fps)
        config.enable_stream(rs.stream.color, *o.colour_size, rs.format.rgb8, o.fps)
        if o.record is not None:
            if o.record.exists():
                raise EdgeAdError(f"{o.record} exists already", "a new file")
            if not o.record.parent.is_dir():
                raise EdgeAdError(f"{o.record.parent} is no folder", "a folder for the raw recording")
            self._partial = o.record.with_suffix(".partial.db3")
            config.enable_record_to_file(str(self._partial))
        try:
            pipeline.start(config)
        except RuntimeError as e:
            raise realsense_sdk.start_error(self._uri, e) from None
        self._running(rs, pipeline, o.fps)

    def _file(self, rs: Any) -> Any:
        o = self._options
        path = Path(o.target)
        config, pipeline = rs.config(), rs.pipeline()
        try:
            config.enable_device_from_file(str(path), repeat_playback=o.loop)
            profile = config.resolve(rs.pipeline_wrapper(pipeline))
            device = profile.get_device()
            kinds = {s.stream_type() for s in profile.get_streams()}
            missing = [n for n, k in (("depth", rs.stream.depth), ("colour", rs.stream.color)) if k not in kinds]
            if missing:
                raise EdgeAdError(f"{path} holds no {' and no '.join(missing)} stream", "a recording of both")
            self._playback = device.as_playback()
            # After resolve() and before start(): later the first frame is lost.
            self._playback.set_real_time(o.realtime)
            self._info = {**realsense_sdk.about(rs, device), "settings": {"played_from": path.name}}
            fps = min(s.fps() for s in profile.get_streams() if s.stream_type() in (rs.stream.depth, rs.stream.color))
            pipeline.start(config)
        except RuntimeError as e:
            raise realsense_sdk.file_error(path, e) from None
        self._running(rs, pipeline, fps)
        return device

    def _running(self, rs: Any, pipeline: Any, fps: int) -> None:
        o = self._options
        # Streams without a common shutter lie up to half a period apart, and half an exposure more.
        skew_s = 1 / max(fps, 1) if o.skew_s is None else o.skew_s
        self._pipeline = pipeline
        self._make = FrameMaker(rs, self._uri, o.class_name, o.align, skew_s, o.filters, static=self._static())

    def _static(self) -> dict[str, Any]:
        kept = {k: v for k, v in self._info.items() if k in ("name", "serial", "firmware", "settings")}
        return {"camera": kept}

    # -- running ------------------------------------------------------------------------------------------------------

    def _settle(self, device: Any) -> None:
        """Discard frames until the exposure stands still, then hold it: a fixed line wants a fixed exposure."""
        o, rs = self._options, self._rs
        if o.kind != "live" or o.settings.settle == 0:
            return
        history: list[tuple[float, float]] = []
        last: dict[str, Any] = {}
        for _ in range(o.settings.settle):
            frames = self._next()
            if frames is None:
                return
            depth, colour = frames.get_depth_frame(), frames.get_color_frame()
            if not (depth and colour):
                continue
            last = frame_metadata(rs, depth, colour)
            history.append(tuple(last.get(f"{k}_exposure", 0) for k in ("depth", "colour")))  # type: ignore[arg-type]
            del frames, depth, colour
            if len(last) and settled(history) and any(history[-1]):
                break
        if o.settings.exposure == "settle":
            self._info["settings"]["fixed"] = fix_exposure(rs, device, last)
            assert self._make is not None
            self._make.static = self._static()

    def _next(self) -> Any:
        """The next frameset, or None at the end of a recording or of what feeds the simulated camera."""
        o = self._options
        ended = self._feed is not None and not self._feed()
        until = time.monotonic() + o.timeout_s
        while True:
            ok, frames = self._pipeline.try_wait_for_frames(POLL_MS)
            if ok:
                return frames
            if ended:
                return None
            if self._playback and self._playback.current_status() == self._rs.playback_status.stopped:
                ok, frames = self._pipeline.try_wait_for_frames(DRAIN_MS)
                return frames if ok else None
            if time.monotonic() >= until:
                raise self._silent()

    def _silent(self) -> EdgeAdError:
        o = self._options
        if o.kind == "live":
            serial = self._info.get("serial")
            if serial not in [d.get("serial") for d in realsense_sdk.connected()]:
                return EdgeAdError(f"the RealSense camera {serial} is no longer connected", "", "check cable and power")
        return EdgeAdError(
            f"{self._uri} gave no frame for {o.timeout_s:g} s",
            "colour and depth",
            "restart the stream, then unplug the camera",
        )

    def _close(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            try:
                pipeline.stop()
            except RuntimeError:  # it never ran, or its device is gone
                pass
        self._feed = self._playback = self._device = None
        if self._make is not None:
            self._make = None
        self._stack.close()
        del pipeline
        gc.collect()  # the SDK finishes a recording when the last reference goes
        if self._options.record is not None and self._partial is not None and self._partial.exists():
            os.replace(self._partial, self._options.record)
            self._partial = None
