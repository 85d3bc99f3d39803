"""Where results go. Lean: NumPy and OpenCV alone.

``open_output("folder:DIR")`` or ``open_output("window:")`` gives an :class:`Output`, a context manager that takes one
frame and its result at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame, Result

__all__ = ["Output", "open_output"]


class Output(ABC):
    """A sink for results."""

    @abstractmethod
    def write(self, frame: Frame | None, result: Result) -> None:
        """Take one result. ``frame`` is None when the source could not give one (``decision: invalid``)."""

    @property
    def closed(self) -> bool:
        """True once a person asked for the end (the window's own close button); a run then stops."""
        return False

    def close(self) -> None:  # noqa: B027  (an output without anything to close is fine)
        """Let go of files and windows. Twice does no harm."""

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_output(uri: str) -> Output:
    """Open an output by its URI.

    Parameters
    ----------
    uri : str
        ``folder:DIR`` writes pictures and one JSON line a frame into DIR
        (``folder:DIR?overlay=0&mask=0&map=0`` leaves pictures out); ``window:`` or ``window:TITLE`` shows the
        live overlay on this box's screen.

    Raises
    ------
    EdgeAdError
        An unknown URI, a folder that holds something else, no display.
    """
    scheme, colon, rest = uri.partition(":")
    if colon and scheme == "folder":
        from edge_ad.outputs.folder import open_folder

        return open_folder(rest)
    if colon and scheme == "window":
        from edge_ad.outputs.window import WindowOutput

        return WindowOutput(rest or "edge-ad")
    raise EdgeAdError(f"output '{uri}'", "folder:DIR or window:", "e.g. --output folder:results")
