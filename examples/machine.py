"""What figures were measured on: processor, cores, Python, packages."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from edge_ad.system import processor_name

VERSIONS = ("edge-ad", "numpy", "opencv-python", "onnxruntime", "torch", "tensorrt-rtx")


def versions() -> str:
    """Packages that the figures depend on."""
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and Python."""
    return f"{processor_name()}, {os.cpu_count()} cores, Python {platform.python_version()}"
