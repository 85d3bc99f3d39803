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
    """Once, when all kernels are loaded: trim the heap, and let go of the pages of libraries that nothing wrote to.

    Code and constants that were needed to get ready alone (the compiler's, those of imports) stay out of memory then;
    what a frame needs is mapped again from the system's cache of the file.
    """
    library = _libc()
    if library is None:
        return
    library.malloc_trim(0)
    for first, last in clean_spans():
        library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED)


def clean_spans(smaps: Path = Path("/proc/self/smaps")) -> list[tuple[int, int]]:
    """Addresses (first, last) of the private mappings of files that cannot be written and hold no page of their own.

    Constants that the loader relocated are pages of the process (``Anonymous`` in smaps); such mappings are left out.
    Empty where the kernel does not tell.
    """
    try:
        lines = smaps.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[tuple[int, int]] = []
    span = None
    for line in lines:
        head, *rest = line.split()
        if "-" in head and not head.endswith(":"):
            rights, inode = rest[0], rest[3]
            is_file = inode != "0" and rights.startswith("r-") and rights.endswith("p")
            span = tuple(int(n, 16) for n in head.split("-")) if is_file else None
        elif head == "Anonymous:" and span is not None and rest[0] == "0":
            found.append((span[0], span[1]))
    return found
