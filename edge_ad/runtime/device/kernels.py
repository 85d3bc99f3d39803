"""Loaded kernels by name, and their launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edge_ad.errors import EdgeAdError
from edge_ad.runtime.device.api import Argument, Driver, Function, Stream
from edge_ad.runtime.kernels import source_of
from edge_ad.runtime.kernels.launch import Launch


class KernelSet:
    """Kernels of an engine's cubins, loaded when they are first used.

    Parameters
    ----------
    images : cubins by source name (:func:`edge_ad.engines.kernels.read_kernels`).
    """

    def __init__(self, driver: Driver, images: Mapping[str, bytes]) -> None:
        self._driver, self._images = driver, images
        self._modules: dict[str, Callable[[str], Function]] = {}
        self._functions: dict[str, Function] = {}

    def load(self, entry: str) -> Function:
        """A kernel by its name; before a graph is recorded every kernel in it must have been loaded."""
        if entry not in self._functions:
            source = source_of(entry)
            if source not in self._modules:
                if source not in self._images:
                    raise EdgeAdError(f"the engine holds no kernel {source}", "", "run edge-ad build-engine again")
                self._modules[source] = self._driver.load(self._images[source])
            self._functions[entry] = self._modules[source](entry)
        return self._functions[entry]

    def run(self, entry: str, launch: Launch, stream: Stream, *arguments: Argument) -> None:
        """Queue a kernel."""
        function: Function = self.load(entry)
        self._driver.launch(function, launch.grid, launch.block, _checked(entry, arguments), stream, launch.shared)


def _checked(entry: str, arguments: Sequence[Argument]) -> Sequence[Argument]:
    for i, a in enumerate(arguments):
        if isinstance(a, bool) or (isinstance(a, int) and not -(2**31) <= a < 2**31):
            raise EdgeAdError(f"{entry}: argument {i} is {a!r}", "a number of 32 bits, or numpy.int64")
    return arguments


def warps(count: int) -> tuple[int, int]:
    """Grid of a kernel with one warp a row and four warps a block."""
    return max(1, -(-count // 4)), 1
