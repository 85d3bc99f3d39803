"""Triggers: which frames of a camera are inspected.

``every``, ``every:5``, ``part`` (fully in view and still), ``stdin:``, ``http:PORT``, ``mqtt:HOST/TOPIC``. A trigger
stands between camera and inspection and is a camera itself. Reports of a failing camera always pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Protocol

import numpy as np

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Bool, Frame
from edge_ad.runtime.geometry import border_ring, fit_plane, frame_xyz
from edge_ad.runtime.preprocess import Scene
from edge_ad.sensors import BrokenFrame, Camera
from edge_ad.sensors.uri import Uri, parse_uri

SCHEMES = ("every", "part", "stdin", "http", "mqtt")


class Trigger(Protocol):
    """Decides frame by frame; started before the first one and closed after the last."""

    def start(self) -> None:
        """Begin to listen."""

    def close(self) -> None:
        """Let go of ports and threads; twice does no harm."""

    def wants(self, item: Frame | BrokenFrame) -> str | None:
        """A label for the inspection (may be empty), or None to let the frame pass by."""


class Every:
    """Every n-th frame, beginning with the first."""

    def __init__(self, n: int = 1) -> None:
        if n < 1:
            raise EdgeAdError(f"trigger every:{n}", "every:N with N >= 1")
        self._n, self._count = n, 0

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to close."""

    def wants(self, item: Frame | BrokenFrame) -> str | None:
        """See :class:`Trigger`."""
        self._count += 1
        return "" if (self._count - 1) % self._n == 0 else None


class PartInView:
    """Once for each part that is fully in view and still, seen in the depth above the supporting plane.

    scene : its plane and region, where they were calibrated; else the plane is fitted on the rim of the first frame.
    still : so many frames in a row with the same outline (0: the part may move; it fires as soon as it is fully in
    view). height_m : above the plane. min_share : least size of a part, a share of the region. same : least overlap of
    the outlines (intersection over union) of a part that is still.
    """

    def __init__(
        self,
        scene: Scene | None = None,
        *,
        still: int = 2,
        height_m: float = 0.005,
        min_share: float = 0.002,
        same: float = 0.9,
    ) -> None:
        self._scene = scene or Scene()
        self._plane = None if self._scene.setup is None else self._scene.setup.plane
        self._still, self._height, self._min_share, self._same = still, height_m, min_share, same
        self._last: Bool | None = None
        self._equal = 0
        self._fired: Bool | None = None  # the outline that was inspected already

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to close."""

    def wants(self, item: Frame | BrokenFrame) -> str | None:
        """See :class:`Trigger`. A frame without usable depth is wanted: it must not pass in silence."""
        if isinstance(item, BrokenFrame):
            return ""
        try:
            outline, region = self._outline(item)
        except InvalidFrame:
            return ""
        last, self._last = self._last, outline
        if outline.sum() < self._min_share * region.sum():
            self._equal, self._fired = 0, None  # the part is gone: the next one is a new one
            return None
        if (outline & _rim(region)).any():
            self._equal, self._fired = 0, None
            return None
        self._equal = self._equal + 1 if last is not None and _overlap(last, outline) >= self._same else 0
        if self._equal < self._still:
            if self._still:
                self._fired = self._fired if self._equal else None
            return None
        if self._fired is not None and (self._still == 0 or _overlap(self._fired, outline) >= 0.5):
            return None
        self._fired = outline
        return ""

    def _outline(self, frame: Frame) -> tuple[Bool, Bool]:
        """(part, region) on every fourth pixel."""
        xyz = frame_xyz(frame)
        region = self._scene.roi if self._scene.roi is not None and self._scene.roi.shape == frame.shape else None
        if self._plane is None:
            ring = border_ring(xyz[..., 2] > 0, 0.06, region)
            self._plane = fit_plane(xyz[ring], self._height, 200)
        small = xyz[::4, ::4]
        inside = np.ones(small.shape[:2], np.bool_) if region is None else region[::4, ::4]
        return inside & (small[..., 2] > 0) & (self._plane.height(small) > self._height), inside


def _rim(region: Bool) -> Bool:
    """The outermost pixels of a region, those on the image's border included."""
    padded = np.pad(region, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inner


def _overlap(a: Bool, b: Bool) -> float:
    """Intersection over union."""
    if a.shape != b.shape:
        return 0.0
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


class TriggeredCamera:
    """The frames of ``camera`` that ``trigger`` wants. A frame's label joins its name; what passed by is counted.

    stop : asked at every frame; True ends the stream, also while nothing is wanted.
    """

    def __init__(self, camera: Camera, trigger: Trigger, stop: Callable[[], bool] = lambda: False) -> None:
        self._camera, self._trigger, self._stop = camera, trigger, stop
        self.passed = 0

    def __enter__(self) -> TriggeredCamera:
        """Start the trigger, then the camera: a port that is taken is told before a camera starts."""
        self._trigger.start()
        try:
            self._camera.__enter__()
        except BaseException:
            self._trigger.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both."""
        try:
            self._camera.__exit__(kind, error, trace)
        finally:
            self._trigger.close()

    @property
    def camera(self) -> Camera:
        """The camera behind the trigger."""
        return self._camera

    @property
    def live(self) -> bool:
        """False: a frame that was asked for is never replaced by a newer one."""
        return False

    def describe(self) -> str:
        """One line for people."""
        return self._camera.describe()

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """The frames that are wanted, and every report of a failing camera."""
        for item in self._camera:
            if self._stop():
                return
            label = self._trigger.wants(item)
            if isinstance(item, BrokenFrame):
                yield replace(item, name=f"{item.name}-{label}") if label else item
            elif label is None:
                self.passed += 1
            else:
                yield replace(item, name=f"{item.name}-{label}") if label else item


_LABEL = re.compile(r"[^A-Za-z0-9_.+-]+")


def safe_label(text: str) -> str:
    """``text`` as a part of a file name: at most 64 letters, digits and ``_ . + -``."""
    return _LABEL.sub("-", text.strip()).strip("-.")[:64]


def open_trigger(text: str, scene: Scene | None = None, say: Callable[[str], None] | None = None) -> Trigger:
    """Make a trigger of its text; see the module. ``scene`` is for ``part``.

    Raises EdgeAdError for an unknown trigger or option, or a package that is missing.
    """
    uri = parse_uri(text if ":" in text else f"{text}:", ())
    if uri.scheme not in SCHEMES:
        raise EdgeAdError(f"trigger '{text}'", "every, every:N, part, stdin:, http:PORT or mqtt:HOST/TOPIC")
    if uri.scheme == "every":
        uri.only()
        if uri.path and not re.fullmatch(r"[0-9]{1,9}", uri.path):
            raise EdgeAdError(f"trigger {text}", "every:N with a whole number N")
        return Every(int(uri.path or 1))
    if uri.scheme == "part":
        return _part(uri, scene)
    from edge_ad.sensors import external

    return external.open_external(uri, say or (lambda line: None))


def _part(uri: Uri, scene: Scene | None) -> PartInView:
    uri.only("still", "height-mm", "min-share", "same")
    if uri.path:
        raise EdgeAdError(f"trigger {uri}", "part, or part:?still=N&height-mm=N&min-share=N&same=N")
    return PartInView(
        scene,
        still=uri.integer("still", 2),
        height_m=uri.number("height-mm", 5.0, 0.1, 1000) / 1e3,
        min_share=uri.number("min-share", 0.002, 0, 1),
        same=uri.number("same", 0.9, 0, 1),
    )
