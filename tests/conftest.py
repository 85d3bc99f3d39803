"""What all tests share: one thread a process, repeatable property tests, and why GPU tests skip."""

from __future__ import annotations

import os

# Before NumPy or torch are imported: pytest-xdist runs a process a core.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest
from hypothesis import HealthCheck, settings

from edge_ad.cli.doctor import gpu

# The same examples every time, and no clock: a slow shared machine is no failure.
settings.register_profile(
    "edge_ad", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("edge_ad")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` skip where no NVIDIA device is visible, and say so."""
    if gpu()["visible"]:
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU; none is visible (edge-ad doctor)")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)
