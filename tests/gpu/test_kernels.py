"""Every kernel test of ``tests/runtime/kernels``, on a real GPU instead of the block emulator.

Hypothesis draws the same examples there. ``compute-sanitizer --tool memcheck pytest -m gpu tests/gpu/test_kernels.py``
(and ``racecheck``, ``synccheck``) runs them under the sanitizer; scripts/gpu_check.sh does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.gpu.on_device import OnDevice, parameters

pytestmark = pytest.mark.gpu
FOLDER = Path(__file__).parents[1] / "runtime/kernels"
# They test the host's side: nothing of them runs on the device.
HOST_ALONE = {"test_score_cost"}
MODULES: list[ModuleType] = [
    importlib.import_module(f"tests.runtime.kernels.{p.stem}")
    for p in sorted(FOLDER.glob("test_*.py"))
    if p.stem not in HOST_ALONE
]
for _module in MODULES:
    for _name in dir(_module):
        if _name.startswith("test_"):
            globals()[f"{_name}__{_module.__name__.rpartition('.')[2]}"] = getattr(_module, _name)


@pytest.fixture(scope="module", autouse=True)
def on_the_gpu(driver: Any, images: dict[str, bytes]) -> Iterator[None]:
    """Put the GPU where the tests expect the emulator."""

    def launch(source: str, *_: object, **__: object) -> OnDevice:
        return OnDevice(driver, images, source)

    with pytest.MonkeyPatch.context() as patch:
        for module in (*MODULES, importlib.import_module("tests.runtime.kernels.run")):
            if hasattr(module, "emulate"):
                patch.setattr(module, "emulate", launch)
        yield


def test_signatures_are_read() -> None:
    found = parameters("score_tokens", "score_pack")
    assert found == [
        ("float", True, True),
        ("long long", False, False),
        ("half_bits", True, False),
        ("int", True, False),
    ]
