"""The pool of grouped clouds that pretraining draws from: made once from seeds, cached in a work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ad.files import write_bytes
from edge_ad.frame import F32
from edge_ad.runtime.pointops import farthest_point_sample, k_nearest
from edge_ad.training.pretrain.shapes import View, draw


@dataclass(frozen=True)
class Pool:
    """Grouped clouds in radius units.

    Attributes
    ----------
    groups : (N, G, K, 3) float16, what the sensor sees, relative to the centre.
    clean : (N, G, K, 3) float16, the same points without sensor noise, relative to the same centre.
    centers : (N, G, 3) float32.
    """

    groups: NDArray[np.float16]
    clean: NDArray[np.float16]
    centers: F32

    def __len__(self) -> int:
        return len(self.centers)


def group_view(view: View, groups: int, size: int, scale: float = 1.0) -> tuple[F32, F32, F32]:
    """Group one view as the runtime does (METHOD section 2): valid points row-major, minus their centroid, scaled so
    that the farthest lies at ``scale``; farthest-point centres, exact nearest neighbours.

    Returns groups (G, K, 3), noise-free groups (G, K, 3), centres (G, 3), float32.
    """
    points = view.xyz[view.valid]
    centroid = points.mean(0)
    points = points - centroid
    factor = np.float32(scale / np.linalg.norm(points, axis=1).max())
    points = np.ascontiguousarray(points * factor)
    clean = (view.clean[view.valid] - centroid) * factor
    centers = points[farthest_point_sample(points, groups)]
    index = k_nearest(points, centers, size)
    return points[index] - centers[:, None], clean[index] - centers[:, None], centers


def make_pool(
    count: int, groups: int, size: int, seed: int, *, grid: int = 224, say: Callable[[str], None] | None = None
) -> Pool:
    """Draw ``count`` views, the i-th from the seed (``seed``, i), each scaled to a radius of 0.6 to 1.4."""
    noisy = np.empty((count, groups, size, 3), np.float16)
    clean = np.empty_like(noisy)
    centers = np.empty((count, groups, 3), np.float32)
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        view = draw(int(rng.integers(2**62)), size=grid)
        noisy[i], clean[i], centers[i] = group_view(view, groups, size, float(rng.uniform(0.6, 1.4)))
        if say and (i + 1) % 100 == 0:
            say(f"pool: {i + 1} of {count} clouds")
    return Pool(noisy, clean, centers)


def load_or_make_pool(
    work: Path,
    count: int,
    groups: int,
    size: int,
    seed: int,
    *,
    grid: int = 224,
    say: Callable[[str], None] | None = None,
) -> Pool:
    """The pool of these sizes and this seed, read from ``work`` when an earlier run left it there."""
    stem = f"pool-n{count}-g{groups}-k{size}-s{seed}-r{grid}"
    names = ("groups", "clean", "centers")
    paths = [work / f"{stem}-{name}.npy" for name in names]
    if all(p.is_file() for p in paths):
        return Pool(*(np.load(p, allow_pickle=False) for p in paths))
    pool = make_pool(count, groups, size, seed, grid=grid, say=say)
    for name, path in zip(names, paths, strict=True):
        _save(path, getattr(pool, name))
    return pool


def _save(path: Path, array: NDArray[np.generic]) -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())
