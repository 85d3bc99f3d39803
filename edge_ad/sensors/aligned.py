"""What cameras share whose maker's SDK aligns depth to colour: options, pairing of the two pictures, the frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from numpy.typing import NDArray

from edge_ad.frame import U8, Frame, Intrinsics
from edge_ad.sensors.pairing import Pairing
from edge_ad.sensors.realsense_modes import read_size
from edge_ad.sensors.uri import Uri


class AlignedCamera(ABC):
    """Base of a camera with depth aligned to colour; the maker's class starts it and takes its pictures.

    ``uri.path``: which device. Options: ``size``, ``fps``, ``skew`` (milliseconds), ``class``, ``timeout`` (seconds).
    """

    maker: ClassVar[str]

    def __init__(self, uri: Uri, size: tuple[int, int]) -> None:
        """``size``: width and height without the option. Raises EdgeAdError for a wrong option."""
        self._uri = str(uri)
        self._which = uri.path
        self._size = read_size(uri, "size", size)
        self._fps = uri.integer("fps", 30, 1)
        self._pairing = Pairing(uri.number("skew", 1000 / self._fps, 0, 60000) / 1e3)
        self._class = uri.text("class")
        self._timeout_s = uri.number("timeout", 5, 0.1, 600)
        self._device: Any = None
        self._pipeline: Any = None
        self._about: dict[str, str] = {}

    def __iter__(self) -> Iterator[Frame]:
        """Frames for as long as they come; none for ``timeout`` s raises EdgeAdError."""
        sequence = 0
        while True:
            yield self._frame(self._next(), sequence)
            sequence += 1

    def describe(self) -> str:
        """One line for people."""
        named = " ".join(self._about.values()) or self.maker
        return f"{self._uri}: {named}, {self._size[0]}x{self._size[1]} at {self._fps} frames a second"

    @property
    def missed(self) -> int:
        """Frames that the camera numbered and did not deliver."""
        return self._pairing.missed

    @property
    def _asked(self) -> str:
        """The device that the URI names, for errors."""
        return f"{self.maker} camera {self._which}".rstrip()

    @abstractmethod
    def _next(self) -> Any:
        """The maker's next pair of pictures. Raises EdgeAdError after ``timeout`` s without."""

    @abstractmethod
    def _frame(self, pictures: Any, sequence: int) -> Frame:
        """What :meth:`_next` gave as a Frame, by way of :meth:`_paired`."""

    def _paired(
        self,
        sequence: int,
        colour: U8,
        depth: NDArray[Any],
        depth_scale_m: float,
        intrinsics: Intrinsics,
        *,
        numbers: tuple[int, int],
        times: tuple[float, float],
    ) -> Frame:
        """A frame; ``numbers`` and ``times`` (seconds, the camera's clock) are of depth and of colour."""
        flags, health = self._pairing(numbers, times, ("hardware", "hardware"))
        return Frame(
            colour=colour,
            depth=depth,
            depth_scale_m=depth_scale_m,
            intrinsics=intrinsics,
            sequence=sequence,
            source=self._uri,
            name=f"{self.maker.lower()}-{sequence:06d}",
            class_name=self._class,
            depth_timestamp_s=times[0],
            colour_timestamp_s=times[1],
            clock="hardware",
            flags=flags,
            health=health,
            metadata={"camera": dict(self._about), "depth_number": numbers[0], "colour_number": numbers[1]},
        )
