"""Cameras that OpenCV opens: ``opencv:NUMBER`` (its depth back ends) or a colour and a depth stream side by side."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from edge_ad.data.camera_file import read_camera
from edge_ad.errors import EdgeAdError
from edge_ad.frame import U8, Frame, Intrinsics
from edge_ad.sensors import paced
from edge_ad.sensors.realsense_modes import read_size
from edge_ad.sensors.uri import Uri

MILLIMETRE = 0.001
HELP = (
    "a camera with depth: one of OpenCV's depth back ends (backend=openni2 or obsensor), or "
    "depth=NUMBER_OR_FILE for a second stream of 16 bit depth that is aligned to colour"
)


@dataclass(frozen=True)
class DepthBackend:
    """A back end of OpenCV that grabs colour and depth together: names of OpenCV's constants."""

    capture: str
    depth: str
    colour: str


BACKENDS = {
    "openni2": DepthBackend("CAP_OPENNI2", "CAP_OPENNI_DEPTH_MAP", "CAP_OPENNI_BGR_IMAGE"),
    "obsensor": DepthBackend("CAP_OBSENSOR", "CAP_OBSENSOR_DEPTH_MAP", "CAP_OBSENSOR_BGR_IMAGE"),
}


def open_uri(uri: Uri) -> OpenCvCamera:
    """``opencv:NUMBER_OR_FILE?camera=FILE.json[&depth=NUMBER_OR_FILE | &backend=openni2][&size=&fps=&class=]``.

    Raises EdgeAdError; a source of colour alone is refused, because the method needs depth.
    """
    uri.only("depth", "backend", "camera", "size", "fps", "class", "timeout")
    if not uri.path:
        raise EdgeAdError(f"{uri} names no device", "opencv:NUMBER or opencv:FILE")
    backend = uri.text("backend")
    if backend is not None and backend not in BACKENDS:
        raise EdgeAdError(f"{uri}: backend={backend}", f"one of: {', '.join(BACKENDS)}")
    if uri.text("depth") is None and backend is None:
        raise EdgeAdError(f"{uri} gives colour and no depth", HELP)
    if uri.text("camera") is None:
        raise EdgeAdError(
            f"{uri}: OpenCV does not tell the intrinsics", "camera=FILE.json", "see docs/data.md for its form"
        )
    return OpenCvCamera(uri)


def _any(source: str) -> int:
    # A numbered series is read by OpenCV's own reader: FFmpeg takes it too, and makes 8 bits of 16.
    return int(cv2.CAP_IMAGES if "%" in source else cv2.CAP_ANY)


class OpenCvCamera:
    """Frames from ``cv2.VideoCapture``. Context manager."""

    def __init__(self, uri: Uri) -> None:
        """Raises EdgeAdError for a wrong option or camera file."""
        self._uri = str(uri)
        self._path = uri.path
        self._depth = uri.text("depth")
        self._backend = BACKENDS.get(uri.text("backend") or "")
        self._backend_name = uri.text("backend")
        self._size = read_size(uri, "size", (0, 0))
        self._fps = uri.number("fps", 0, 0, 1000)
        self._class = uri.text("class")
        self._timeout_s = uri.number("timeout", 5, 0.1, 600)
        self._camera: tuple[Intrinsics, float] = read_camera(Path(uri.text("camera") or ""))
        self._captures: list[Any] = []

    def __enter__(self) -> OpenCvCamera:
        """Open the streams. Raises EdgeAdError."""
        try:
            if self._backend is not None:
                self._captures.append(self._open(self._path, self._wanted_backend()))
            else:
                self._captures.append(self._open(self._path, _any(self._path)))
                depth = self._open(self._depth or "", _any(self._depth or ""))
                depth.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # 16 bits as they are, not a grey picture
                self._captures.append(depth)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the devices."""
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        """Frames until a file ends; a device that gives none for ``timeout`` s raises EdgeAdError."""
        return paced(self._frames(), self._fps if not self._live(self._path) else 0)

    def describe(self) -> str:
        """One line for people."""
        return f"{self._uri}: colour {self._path}, depth {self._depth or self._backend_name} through OpenCV"

    @staticmethod
    def _live(source: str) -> bool:
        return re.fullmatch(r"[0-9]+|/dev/.*", source) is not None

    def _wanted_backend(self) -> int:
        number = int(getattr(cv2, self._backend.capture)) if self._backend else 0
        if number not in [int(b) for b in cv2.videoio_registry.getBackends()]:
            raise EdgeAdError(
                f"this OpenCV ({cv2.__version__}) was built without {self._backend_name}",
                "a build with it",
                "use the camera maker's own source (edge-ad cameras)",
            )
        return number

    def _open(self, source: str, backend: int) -> Any:
        number = int(source) if source.isdigit() else None
        if number is None and not source.startswith("/dev/") and "%" not in source and not Path(source).exists():
            raise EdgeAdError(f"{source} does not exist", "a device's number, a video or a numbered series of pictures")
        if number is not None and self._backend is None and not Path(f"/dev/video{number}").exists():
            # Asked before OpenCV, which tries every back end and prints a page about it.
            there = ", ".join(sorted(p.name for p in Path("/dev").glob("video*"))) or "none"
            raise EdgeAdError(f"no device /dev/video{number}", f"a camera; there are: {there}")
        capture = cv2.VideoCapture(source if number is None else number, backend)
        if not capture.isOpened():
            capture.release()
            raise EdgeAdError(f"OpenCV cannot open {source}", "a camera that is free, or a video it can decode")
        if all(self._size) and self._live(source):
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._size[1])
        return capture

    def _close(self) -> None:
        while self._captures:
            self._captures.pop().release()

    def _frames(self) -> Iterator[Frame]:
        sequence = 0
        until = time.monotonic() + self._timeout_s
        while True:
            grabbed = [capture.grab() for capture in self._captures]  # all grab before any decodes: close in time
            if not all(grabbed):
                if not self._live(self._path):
                    if not sequence:
                        raise EdgeAdError(f"{self._uri} holds no picture", "at least one of each stream")
                    return
                if time.monotonic() > until:
                    raise EdgeAdError(f"{self._uri} gave no frame for {self._timeout_s:g} s", "", "check the camera")
                time.sleep(0.01)
                continue
            now = time.time()
            yield self._frame(sequence, now)
            sequence += 1
            until = time.monotonic() + self._timeout_s

    def _frame(self, sequence: int, now: float) -> Frame:
        flags = (
            (int(getattr(cv2, self._backend.colour)), int(getattr(cv2, self._backend.depth)))
            if self._backend
            else (0, 0)
        )
        captures = (self._captures[0], self._captures[-1])
        pictures = [capture.retrieve(flag=flag)[1] for capture, flag in zip(captures, flags, strict=True)]
        colour, depth = self._check(*pictures)
        k, scale = self._camera
        return Frame(
            colour=colour,
            depth=depth,
            depth_scale_m=MILLIMETRE if self._backend else scale,
            intrinsics=k,
            sequence=sequence,
            source=self._uri,
            name=f"opencv-{sequence:06d}",
            class_name=self._class,
            colour_timestamp_s=now,
            depth_timestamp_s=now,
            clock="system",
        )

    def _check(self, colour: Any, depth: Any) -> tuple[U8, Any]:
        """RGB and 16 bit depth of the sizes of the intrinsics. Raises EdgeAdError."""
        if depth is not None and depth.ndim == 3 and depth.shape[2] == 1:
            depth = depth[..., 0]
        if depth is not None and depth.dtype == np.uint8 and depth.ndim == 3 and depth.shape[2] == 2:
            depth = np.ascontiguousarray(depth).view(np.uint16)[..., 0]  # V4L2 gives Z16 as two bytes
        if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
            said = "nothing" if depth is None else f"{depth.dtype} of shape {depth.shape}"
            raise EdgeAdError(f"{self._depth or self._path} gave {said}", "one channel of 16 bit depth")
        if colour is None or colour.dtype != np.uint8 or colour.ndim != 3:
            said = "nothing" if colour is None else f"{colour.dtype} of shape {colour.shape}"
            raise EdgeAdError(f"{self._path} gave {said}", "colour with 8 bits a channel")
        k = self._camera[0]
        for what, picture in (("colour", colour), ("depth", depth)):
            if picture.shape[:2] != (k.height, k.width):
                found = f"{what} of {picture.shape[1]} x {picture.shape[0]} pixels"
                raise EdgeAdError(
                    found, f"{k.width} x {k.height} as in the camera file", "pass size=, or another camera="
                )
        return np.ascontiguousarray(colour[..., 2::-1]), depth.copy()
