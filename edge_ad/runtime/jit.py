"""Compiling the CPU kernels: numba, cached on disk, and one matrix product that they may call.

The kernels run without Python's lock, so that a few plain threads share their work; numba's own threads, which must not
be entered twice, are not used. What is compiled is kept in ``__pycache__`` beside the module (or in numba's cache
folder for the user, or in ``NUMBA_CACHE_DIR``): only the very first call on a machine waits for the compiler.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger(__name__)

ROUNDED: dict[str, Any] = {"fastmath": {"nsz", "nnan"}}
"""Comparisons may be vectorised; sums and products are rounded one by one, as written (METHOD.md section 2)."""
FUSED: dict[str, Any] = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}
"""Multiply-adds may be fused and sums reordered; NaN and infinity keep their meaning."""


def compiled(**options: Any) -> Callable[[F], F]:
    """Decorator: compile with numba at the first call, cached on disk, without the interpreter's lock."""

    def wrap(function: F) -> F:
        try:
            made = numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError as e:  # numba found no folder to write its cache to
            log.warning("compiled code cannot be kept (%s): every start compiles anew; set NUMBA_CACHE_DIR", e)
            return numba.njit(nogil=True, **options)(function)
        if hasattr(made, "_cache"):  # else NUMBA_DISABLE_JIT: the function itself
            _stamp(made, function, options)
        return made

    return wrap


def _stamp(made: Any, function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Let the cache notice changed options and changed compiled functions of other modules that ``function`` calls.

    Numba itself compares the date and size of the function's own file alone: after a change elsewhere the old code
    would go on, in silence.
    """
    index = made._cache._cache_file
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    below = [f._cache._cache_file._source_stamp for f in called if isinstance(f, type(made)) and f is not made]
    # A set is written in another order by every process.
    told = repr(sorted((name, sorted(v) if isinstance(v, set) else v) for name, v in options.items()))
    index._source_stamp = (index._source_stamp, told, tuple(below))


def _cython_blas() -> Any:
    """``scipy.linalg.cython_blas`` without the rest of ``scipy.linalg``, which nothing here uses and takes 12 MB."""
    name = "scipy.linalg.cython_blas"
    if name not in sys.modules:
        import scipy  # finds the BLAS library that SciPy brings along

        for suffix in EXTENSION_SUFFIXES:
            path = Path(scipy.__file__).parent / f"linalg/cython_blas{suffix}"
            spec = spec_from_file_location(name, path) if path.exists() else None
            if spec is not None and spec.loader is not None:
                module = sys.modules[name] = module_from_spec(spec)
                try:
                    spec.loader.exec_module(module)
                except ImportError:
                    del sys.modules[name]
                break
    return import_module(name)


def _register_sgemm() -> Any:
    """SciPy's ``sgemm`` under a name that compiled code can link to, from the cache as well."""
    capsule = _cython_blas().__pyx_capi__["sgemm"]
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    llvmlite.binding.add_symbol("edge_ad_sgemm", get_pointer(capsule, get_name(capsule)))
    # Fortran calling: every argument is an address; an address is an integer of the same register class.
    return types.ExternalFunction("edge_ad_sgemm", types.void(*[types.intp] * 13))


sgemm = _register_sgemm()
LETTERS = np.frombuffer(b"TN", dtype=np.uint8)
ONE_ZERO = np.array([1, 0], dtype=np.float32)


@compiled()
def product(
    c: int, ldc: int, a: int, lda: int, b: int, ldb: int, m: int, n: int, k: int,
    sizes: NDArray[np.int32], letters: NDArray[np.uint8], one_zero: NDArray[np.float32],
) -> None:  # fmt: skip
    """C (m, n) = A (m, k) B^T (n, k), row-major; ``a, b, c`` are addresses, ``ld*`` the elements between two rows.

    sizes : (6,) int32 scratch. letters : :data:`LETTERS`. one_zero : :data:`ONE_ZERO`.
    """
    sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5] = n, m, k, ldb, lda, ldc
    at, ones = sizes.ctypes.data, one_zero.ctypes.data
    text = letters.ctypes.data
    sgemm(text, text + 1, at, at + 4, at + 8, ones, b, at + 12, a, at + 16, ones + 4, c, at + 20)


@lru_cache(maxsize=1)
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@lru_cache(maxsize=1)
def one_blas_thread() -> None:
    """NumPy's and SciPy's matrix products run on the thread that asks for them, in this process, from now on.

    The runtime has threads of its own; a product that starts others below them only makes all of them wait.
    """
    _blas().limit(limits=1)


@lru_cache(maxsize=8)
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that compiled kernels share, one set a size."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernels")


def share(tasks: Sequence[Callable[[], Any]], threads: int) -> list[Any]:
    """Run all tasks on up to ``threads`` threads; their results, in order. What one raises is raised here."""
    if threads <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    return [future.result() for future in [pool(threads).submit(task) for task in tasks]]
