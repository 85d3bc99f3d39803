"""Kernels on a GPU behind the names of the block emulator, so that the same tests run on both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_ad.runtime.device.api import host_view
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.kernels import entries, text
from edge_ad.runtime.kernels.launch import Launch

_SCALARS = {
    "int": int,
    "unsigned": lambda v: int(np.uint32(v).astype(np.int32)),  # the same 32 bits
    "float": float,
    "double": np.float64,
    "long long": np.int64,
}


def parameters(source: str, entry: str) -> list[tuple[str, bool, bool]]:
    """(type, is a pointer, is const) of every parameter of a kernel."""
    found = re.search(rf"__global__[^;{{]*?\b{entry}\s*\(([^{{]*?)\)\s*{{", text(source))
    assert found is not None, entry
    out = []
    for parameter in found[1].split(","):
        words = parameter.replace("__restrict__", " ").replace("*", " * ").split()
        kind = " ".join(w for w in words[:-1] if w not in ("const", "*"))
        out.append((kind, "*" in words, words[0] == "const"))
    return out


class OnDevice:
    """``module.kernel[grid, block, shared](arrays and numbers)``: copies to the GPU, launches, copies back."""

    def __init__(self, driver: Any, images: Mapping[str, bytes], source: str) -> None:
        self._driver, self._source = driver, source
        self._kernels = KernelSet(driver, images)

    def use(self, *_: object) -> OnDevice:
        """The GPU has its own order of threads."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in entries(self._source):
            raise AttributeError(name)
        module = self

        class Entry:
            def __getitem__(self, launch: tuple[Any, ...]) -> Any:
                grid, block, *shared = launch
                size = (int(grid), 1) if np.ndim(grid) == 0 else tuple(int(g) for g in grid)
                return lambda *values: module._call(name, Launch(size, int(block), *map(int, shared)), values)

        return Entry()

    def _call(self, name: str, launch: Launch, values: tuple[Any, ...]) -> None:
        driver, arena = self._driver, Arena(self._driver)
        stream = driver.stream()
        arguments, back = [], []
        for value, (kind, pointer, const) in zip(values, parameters(self._source, name), strict=True):
            if not pointer:
                arguments.append(_SCALARS[kind](value))
                continue
            if value is None:
                arguments.append(None)
                continue
            memory = arena.constant(value, stream)
            arguments.append(memory)
            if not const:
                back.append((value, memory))
        self._kernels.run(name, launch, stream, *arguments)
        for array, memory in back:
            host = arena.pinned(array.shape, array.dtype)
            driver.download(host, memory, array.nbytes, stream)
            driver.synchronize(stream)
            array[...] = host_view(host, array.shape, array.dtype)
        driver.synchronize(stream)
        arena.free()
