"""What the host prepares for the kernels: launch sizes, coefficient tables, buffers' sizes. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32
from edge_ad.presets import Fusion

I32 = NDArray[np.int32]
SHARED_LIMIT = 48 * 1024
"""Dynamic shared memory a block gets on every device without asking."""
MAX_BUCKETS = 1024
MAX_K = 128
STAT_FIELDS = 7
"""Integers a connected area: area, x0, y0, x1, y1 (half open), bits of the float32 peak, first 2 x 2 block."""
REGION_FIELDS = 1 + STAT_FIELDS
"""Integers a listed area: its root pixel, and those."""
MEASURES = 12
"""What ``region_measures`` writes for each (regions.cu)."""
UNITS, FLOATS, REGISTERED = 0, 1, 2
"""Kinds of depth (depth.cu): 16 bit units, float32; ``REGISTERED`` is added for what ``register_depth`` wrote."""
PRECISION = 22


@dataclass(frozen=True)
class Launch:
    """``grid`` blocks (x, y) of ``block`` threads, with ``shared`` bytes of dynamic shared memory."""

    grid: tuple[int, int]
    block: int
    shared: int = 0


def per_thread(n: int, block: int = 256) -> Launch:
    """One thread an element, at least one block."""
    return Launch((max(1, -(-n // block)), 1), block)


@dataclass(frozen=True)
class Buckets:
    """How points lie in buckets: ``count`` of them with ``room`` slots each.

    ``across`` : tiles a row, ``tile`` : their side in pixels; both 0 where buckets are consecutive points.
    """

    count: int
    room: int
    across: int = 0
    tile: int = 0

    @property
    def slots(self) -> int:
        """Slots in all: float4 ``slots`` and float ``nearest`` have so many, ``boxes`` two float4 a bucket."""
        return self.count * self.room

    def launch(self) -> Launch:
        """Of ``order_tiles`` and ``order_points``: a warp a bucket."""
        return per_thread(32 * self.count)


def tile_buckets(size: int, stride: int = 1) -> Buckets:
    """Buckets of a size x size sample grid, of which every stride-th pixel is drawn."""
    lattice = -(-size // stride)
    tile = 8
    while (-(-lattice // tile)) ** 2 > MAX_BUCKETS:
        tile *= 2
    across = -(-lattice // tile)
    return Buckets(across * across, tile * tile, across, tile)


def consecutive_buckets(most: int) -> Buckets:
    """Buckets of at most ``most`` points in their order."""
    room = 32 * max(1, -(-most // (32 * MAX_BUCKETS)))
    return Buckets(max(1, -(-most // room)), room)


FPS = Launch((1, 1), 1024)
"""``farthest_points``: one block."""


def knn_launch(groups: int, k: int) -> Launch:
    """Of ``nearest_points``: a warp a centre.

    Raises
    ------
    EdgeAdError
        ``k`` is beyond what a warp holds.
    """
    if not 1 <= k <= MAX_K:
        raise EdgeAdError(f"groups of {k} points on the device", f"1 to {MAX_K}")
    return Launch((max(1, -(-groups // 8)), 1), 256)


def compact_launch(size: int) -> Launch:
    """Of ``compact_count`` and ``compact_scatter``; the former writes one count a block."""
    return per_thread(size * size, 1024)


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


@lru_cache(maxsize=16)
def bicubic_table(side: int, size: int) -> tuple[I32, I32]:
    """Pillow's coefficients of antialiased bicubic resampling, ``side`` to ``size`` pixels along one axis.

    Returns
    -------
    (size, 2) int32: the first source pixel and how many; (size, room) int32: their weights in units of 2**-22, summing
    to 1 but for rounding. Pillow's own order of float64 operations (Resample.c, precompute_coeffs).
    """
    scale = side / size
    widened = max(scale, 1.0)
    support = 2.0 * widened
    room = math.ceil(support) * 2 + 1
    bounds, taps = np.zeros((size, 2), np.int32), np.zeros((size, room), np.int32)
    for i in range(size):
        center = (i + 0.5) * scale
        low = max(int(center - support + 0.5), 0)
        high = min(int(center + support + 0.5), side)
        weights = [_bicubic((x + low - center + 0.5) * (1.0 / widened)) for x in range(high - low)]
        total = 0.0
        for w in weights:
            total += w
        for t, w in enumerate(weights):
            share = w / total if total != 0 else w
            taps[i, t] = int((-0.5 if share < 0 else 0.5) + share * (1 << PRECISION))
        bounds[i] = low, high - low
    bounds.setflags(write=False)
    taps.setflags(write=False)
    return bounds, taps


@lru_cache(maxsize=16)
def preprocess_launch(side: int, size: int) -> Launch:
    """Of ``preprocess``: as many rows a block as their source rows fit shared memory.

    Raises
    ------
    EdgeAdError
        A window so large that even one row's sources do not fit.
    """
    bounds = bicubic_table(side, size)[0]
    for rows in (8, 4, 2, 1):
        tops = np.arange(0, size, rows)
        bottoms = np.minimum(tops + rows, size) - 1
        most = int((bounds[bottoms].sum(axis=1) - bounds[tops, 0]).max())
        if 96 * most <= SHARED_LIMIT:
            return Launch((-(-size // 32), -(-size // rows)), 32 * rows, 96 * most)
    raise EdgeAdError(
        f"a window of {side} camera pixels for {size} sample pixels", "at most 120 to 1", "use a smaller crop"
    )


@dataclass(frozen=True)
class Smoothing:
    """The filters of one smoothing as the kernel takes them: radius (P,) int32, scale (P,), taps (sum,) float32."""

    radius: I32
    scale: F32
    taps: F32
    rim: int

    @property
    def fits(self) -> bool:
        """Whether a tile with its rim fits shared memory."""
        return self._shared <= SHARED_LIMIT

    @property
    def _shared(self) -> int:
        return 2 * 4 * (32 + 2 * self.rim) ** 2

    def launch(self, size: int) -> Launch:
        """Of ``smooth``.

        Raises
        ------
        EdgeAdError
            Filters so wide that a tile with its rim does not fit shared memory.
        """
        if not self.fits:
            raise EdgeAdError(
                f"smoothing that reaches {self.rim} pixels", "at most 23 on the device", "set a smaller fusion.sigma"
            )
        return Launch((-(-size // 32), -(-size // 32)), 512, self._shared)


def smoothing(fusion: Fusion) -> Smoothing | None:
    """The filters of ``fusion.smoothing`` (see ``edge_ad.runtime.maps``), or None for none."""
    if fusion.smoothing == "none":
        return None
    if fusion.smoothing == "gaussian":
        import cv2

        radius = int(4.0 * fusion.sigma + 0.5)
        taps = np.asarray(cv2.getGaussianKernel(2 * radius + 1, fusion.sigma, cv2.CV_32F), np.float32).reshape(-1)
        return Smoothing(np.array([radius], np.int32), np.ones(1, np.float32), taps, radius)
    widths = [5] * 5 + [7] * 3
    radii = np.array([w // 2 for w in widths], np.int32)
    scales = np.array([1.0 / (w * w) for w in widths], np.float32)
    return Smoothing(radii, scales, np.ones(sum(widths), np.float32), int(radii.sum()))
