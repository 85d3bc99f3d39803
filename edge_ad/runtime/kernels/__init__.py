"""CUDA kernels of the runtime: one ``.cu`` a stage, beside its NumPy reference. Sources alone; nothing here needs CUDA.

A kernel is an ``extern "C" __global__`` function; the comment above it says shapes, what is written and its launch.
``launch`` has the tables and launch sizes that the host prepares, ``cost`` the bytes and operations of every kernel,
``reference`` the NumPy functions that the kernels are held against where no module of the runtime is one. The device
holds numbers that vary from frame to frame (how many points there are), so that a CUDA graph stays valid.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from edge_ad.errors import EdgeAdError

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17",)
UNFUSED = "-fmad=false"
_ENTRY = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
_INCLUDE = re.compile(r'^#include "([\w.]+)"', re.MULTILINE)


def names() -> tuple[str, ...]:
    """Names of the sources, without suffix, in alphabetical order."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.cu")))


def text(name: str) -> str:
    """A source with its own headers put in: one text, as NVRTC takes it and as its hash is made of."""
    path = FOLDER / f"{name}.cu"
    if not path.is_file():
        raise EdgeAdError(f"no kernel source '{name}'", f"one of {', '.join(names())}")
    return _INCLUDE.sub(lambda m: (FOLDER / m[1]).read_text(encoding="utf-8"), path.read_text(encoding="utf-8"))


def sha256(name: str) -> str:
    """Hex SHA-256 of all that a source is compiled from, the compiler's flags included."""
    return hashlib.sha256("\0".join((*flags(name), text(name))).encode()).hexdigest()


@cache
def entries(name: str) -> tuple[str, ...]:
    """The kernels of a source, in order."""
    return tuple(_ENTRY.findall(text(name)))


def flags(name: str) -> tuple[str, ...]:
    """Compiler flags. Geometry fuses no multiply-add, to equal NumPy; the scoring kernels may."""
    return FLAGS if name.startswith("score_") else (*FLAGS, UNFUSED)


def source_of(entry: str) -> str:
    """The source that holds a kernel."""
    for name in names():
        if entry in entries(name):
            return name
    raise EdgeAdError(f"no kernel '{entry}'", f"one of {', '.join(e for n in names() for e in entries(n))}")
