"""A real GPU for the tests here: the driver, and the kernels compiled for it. Each reason to skip is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from edge_ad.errors import EdgeAdError
from tests.emulator.emulate import ON_HOST


@lru_cache(maxsize=1)
def _images(capability: tuple[int, int]) -> dict[str, bytes]:
    from edge_ad.engines.kernels import compile_kernel
    from edge_ad.runtime.kernels import names

    if os.environ.get(ON_HOST):  # tests/gpu/cuda_on_host: a "cubin" is the path of emulated kernels
        from tests.emulator.emulate import emulate

        return {name: emulate(name).library._name.encode() for name in names()}
    return {name: compile_kernel(name, capability).cubin for name in names()}


@pytest.fixture(scope="session")
def driver() -> Iterator[Any]:
    """PyCUDA's driver on the first GPU, its context current."""
    from edge_ad.runtime.driver import PyCudaDriver

    try:
        made = PyCudaDriver()
    except EdgeAdError as e:
        pytest.skip(str(e))
    with made.current():
        yield made


@pytest.fixture(scope="session")
def images(driver: Any) -> dict[str, bytes]:
    """Cubins for this GPU."""
    try:
        return _images(driver.capability)
    except EdgeAdError as e:
        pytest.skip(str(e))
