"""Resident memory of this process: giving back to the system what is free, or was needed to get ready alone."""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

_M_MMAP_THRESHOLD = -3
_MADV_DONTNEED = 4
LARGE_BLOCK = 2**20
"""Bytes from which a block is a mapping of its own."""
COMPILER = "libllvmlite"


@lru_cache(maxsize=1)
def _libc() -> Any:
    """The C library, or None where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL("libc.so.6", use_errno=True)
        return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
    except OSError:
        return None


@lru_cache(maxsize=1)
def give_back_large_blocks() -> bool:
    """From now on blocks of a megabyte and more go back to the system when they are freed; False without glibc.

    glibc moves that threshold up to 32 MB as a program frees large blocks; what lies below stays resident in the heap.
    Loading a model leaves hundreds of megabytes behind that way, and so do its activations.
    """
    library = _libc()
    return library is not None and bool(library.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK))


@lru_cache(maxsize=1)
def settle() -> None:
    """Once, when all kernels are loaded: trim the heap, and let the pages of the compiler's code go.

    Those pages are read from their file again if the compiler should be needed once more.
    """
    library = _libc()
    if library is None:
        return
    library.malloc_trim(0)
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        span, rights, *rest = line.split(maxsplit=5)
        if rights.startswith("r-x") and COMPILER in rest[-1]:  # code, never written to: its pages are the file's
            first, last = (int(n, 16) for n in span.split("-"))
            library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)
