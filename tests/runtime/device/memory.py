"""Memory of the emulated driver: every access is told to it, and nothing is used after it was freed."""

from __future__ import annotations

from typing import Any

import numpy as np

HOST = 0
"""The host among the streams."""


class Race(AssertionError):
    """Two accesses whose order nothing guarantees."""


class UseAfterFree(AssertionError):
    """Memory that is gone, or goes while it is in use."""


class FakeMemory:
    """An allocation; ``bytes`` is what it holds, poisoned at first."""

    def __init__(self, driver: Any, nbytes: int, name: str) -> None:
        self.driver, self.nbytes, self.name = driver, max(1, nbytes), name
        self.address = 0  # given by the driver
        self.bytes = np.full(self.nbytes, 0xA5, np.uint8)
        self.write: tuple[int, int, str] = (HOST, 0, "allocation")
        self.reads: dict[int, tuple[int, str]] = {}
        self.freed = False
        driver.add(self)

    def free(self) -> None:
        if self.freed:
            raise UseAfterFree(f"{self.name} is freed twice")
        self.driver.touch(self, HOST, True, "free")
        self.freed = True


class FakeHostMemory(FakeMemory):
    """Page-locked memory; the host's accesses are checked like a stream's."""

    def __init__(self, driver: Any, nbytes: int, mapped: bool) -> None:
        super().__init__(driver, nbytes, "page-locked memory")
        self.mapped = mapped
        self.device_address = self.address
        if not mapped:
            self.address = 0

    @property
    def array(self) -> np.ndarray:
        # The host may write through it, so it must be idle.
        self.driver.touch(self, HOST, True, "the host")
        return self.bytes
