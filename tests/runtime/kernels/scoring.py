"""Random tables, pixels and neighbours for the tests of the scoring kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from edge_ad.runtime.kernels import score_reference as ref

SIZE, GRID, GROUPS = 24, 6, 20
STORAGE = {"f32": (np.float32, 1e-5), "f16": (np.float16, 2e-3)}
sizes = st.integers(1, 70)


class Scene:
    """Random tables, pixels and neighbours."""

    def __init__(self, seed: int, n: int, rgb_width: int, point_width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rgb = self.rng.normal(size=(GRID * GRID, rgb_width)).astype(np.float32)
        self.points = self.rng.normal(size=(GROUPS, point_width)).astype(np.float32)
        self.n = n
        self.pixel = np.sort(self.rng.choice(SIZE * SIZE, n, replace=False)).astype(np.int32)
        self.near = np.stack([self.rng.choice(GROUPS, 3, replace=False) for _ in range(n)]).astype(np.int32)
        weight = self.rng.random((n, 3)).astype(np.float32) + np.float32(1e-3)
        self.weight = weight / weight.sum(axis=1, keepdims=True)
        self.low, self.share = ref.axis_taps(SIZE, GRID)

    def colour_taps(self, first: int = 0) -> ref.Taps:
        return ref.bilinear_taps(self.pixel[first:], SIZE, GRID)

    def near_taps(self, first: int = 0) -> ref.Taps:
        return self.near[first:].astype(np.int64), self.weight[first:].astype(np.float64)

    @property
    def colour_args(self) -> tuple[Any, ...]:
        return self.pixel, self.low, self.share, SIZE, GRID


def stored(array: np.ndarray, kind: str) -> np.ndarray:
    """As ``score_product`` takes it: float32, or FP16 as 16-bit words."""
    return array if kind == "f32" else array.astype(np.float16).view(np.uint16)


def packed(array: np.ndarray, kind: str) -> np.ndarray:
    """As the other kernels take it: bytes."""
    return stored(np.ascontiguousarray(array), kind).view(np.uint8)


def seen(array: np.ndarray, kind: str) -> np.ndarray:
    """The numbers that are stored."""
    return array if kind == "f32" else array.astype(np.float16).astype(np.float32)


def blocks(n: int, per_block: int = 4) -> int:
    return -(-n // per_block)


def many(n: int) -> np.ndarray:
    return np.array([n], np.int32)


def zero() -> np.ndarray:
    return np.zeros(1, np.int32)
