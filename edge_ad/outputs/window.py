"""``window:``: the live overlay on the box's own screen. ``q``, Esc or the close button end the run."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2
import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame, Result
from edge_ad.outputs import Output
from edge_ad.outputs.overlay import draw_overlay

PROBE = "import cv2; cv2.namedWindow('edge-ad'); cv2.waitKey(1); cv2.destroyAllWindows()"
PROBE_TIMEOUT_S = 20.0
END_KEYS = (ord("q"), 27)  # q, Esc


def check_display() -> None:
    """Raise EdgeAdError with the remedy when no window can be shown here.

    The try runs in a process of its own: where the display refuses, Qt ends the whole process.
    """
    remedy = "run on the box's own desktop (or set DISPLAY, e.g. DISPLAY=:0), or write with --output folder:DIR"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise EdgeAdError("output 'window:': DISPLAY is not set", "a screen", remedy)
    try:
        probe = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EdgeAdError("output 'window:': the display does not answer", "a screen", remedy) from None
    if probe.returncode == 0:
        return
    if b"not implemented" in probe.stderr:
        raise EdgeAdError(
            f"output 'window:': this OpenCV ({cv2.__version__}) was built without windows",
            "opencv-python",
            "run: pip uninstall opencv-python-headless && pip install --force-reinstall opencv-python",
        )
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    raise EdgeAdError(f"output 'window:': the display {display} cannot be opened", "a screen", remedy)


class WindowOutput(Output):
    """Shows each result as it comes; it never waits for a person."""

    def __init__(self, title: str = "edge-ad") -> None:
        check_display()
        self.title = title
        self._open = False
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def write(self, frame: Frame | None, result: Result) -> None:
        if self._closed:
            return
        if frame is None:
            frame = Frame(colour=np.zeros((480, 640, 3), np.uint8), name=result.name)
        picture = draw_overlay(frame, result)
        if not self._open:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(self.title, picture.shape[1], picture.shape[0])
            self._open = True
        cv2.imshow(self.title, np.ascontiguousarray(picture[..., ::-1]))
        key = cv2.waitKey(1) & 0xFF
        gone = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        if key in END_KEYS or gone:
            self._closed = True
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            try:
                cv2.destroyWindow(self.title)
            except cv2.error:  # a person has closed it already
                pass
            cv2.waitKey(1)
