"""What this machine reaches: float32 matrix products and memory copies, measured, not read from a data sheet."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_ad.parallel import cores
from edge_ad.runtime.jit import one_blas_thread
from edge_ad.system import processor_name

SIDE = 1024
"""Side of the measured matrices: three of them lie in a second-level cache and a bit."""
COPY_MB = 64


@dataclass(frozen=True)
class Peak:
    """gflops : float32 matrix product, 10^9 operations a second. copy_gb_s : bytes read and written by a copy, 10^9 a
    second. threads : that worked at once."""

    processor: str
    threads: int
    gflops: float
    copy_gb_s: float


def measure_peak(threads: int | None = None, seconds: float = 0.4) -> Peak:
    """Best of repeated products and copies, with ``threads`` workers at once (None: one a core).

    Each worker has its own matrices and one thread of arithmetic, so that the figure is what the networks could get.
    """
    threads = threads or cores()
    rng = np.random.default_rng(0)
    a = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    outs = [np.empty_like(a) for _ in range(threads)]
    sources = [np.ones(COPY_MB * 1_000_000 // 4, np.float32) for _ in range(threads)]
    targets = [np.empty_like(s) for s in sources]
    one_blas_thread()
    with ThreadPoolExecutor(threads) as pool:

        def best(work: str) -> float:
            fastest = float("inf")
            end = time.perf_counter() + seconds
            while time.perf_counter() < end or fastest == float("inf"):
                start = time.perf_counter()
                if work == "product":
                    list(pool.map(lambda out: np.matmul(a, a, out=out), outs))
                else:
                    list(pool.map(np.copyto, targets, sources))
                fastest = min(fastest, time.perf_counter() - start)
            return fastest

        product, copy = best("product"), best("copy")
    return Peak(
        processor_name(),
        threads,
        threads * 2 * SIDE**3 / product / 1e9,
        threads * 2 * sources[0].nbytes / copy / 1e9,
    )
