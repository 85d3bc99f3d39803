"""From a sample's valid points to what the point encoder and the interpolation need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, I64, Sample
from edge_ad.presets import Points
from edge_ad.runtime.jit import share
from edge_ad.runtime.point_means import mean_of_rows, mean_point
from edge_ad.runtime.pointops import arrange, farthest_point_sample, group_points, k_nearest, three_nearest


@dataclass(frozen=True)
class PointInput:
    """Input of ``points.onnx`` and the 3-NN interpolation of its tokens.

    groups : (G, K, 3) float32, each group minus its centre. centers : (G, 3) float32.
    interp_index : (n_valid, 3) int64 into the groups; interp_weight : (n_valid, 3) float32. Rows are
    the valid pixels, row-major.
    pool_index : (G, pool) int64, the nearest centres of each centre, itself first.
    """

    groups: F32
    centers: F32
    interp_index: I64
    interp_weight: F32
    pool_index: I64

    def pooled(self, tokens: F32) -> F32:
        """(G, D) tokens -> (G, D) float32, each the mean over its nearest centres (preset field ``points.pool``).

        An interpolation whose weights sum to 1, like those to pixels, so METHOD.md section 7 holds with it.
        """
        if self.pool_index.shape[1] == 1:
            return tokens
        return mean_of_rows(np.ascontiguousarray(tokens, dtype=np.float32), self.pool_index)


def radius(points: F32) -> float:
    """Largest distance of a point from the cloud's mean, in the cloud's unit."""
    return float(np.sqrt(((points - mean_point(points)) ** 2).sum(axis=1).max()))


def normalise(points: F32, how: str, scale_m: float) -> F32:
    """(N, 3) metres -> (N, 3) float32 in the unit of the point encoder (preset field ``points.normalize``).

    ``none``: unchanged. ``unit-sphere``: minus the mean, over the largest distance to it. ``fixed``: minus the mean,
    over ``scale_m``, so that sizes stay comparable between parts.
    """
    if how == "none":
        return points
    moved = points - mean_point(points).astype(np.float32)
    scale = radius(points) if how == "unit-sphere" else scale_m
    if not scale > 0:
        raise InvalidFrame("all valid points coincide", "a part with some extent")
    return np.asarray(moved * np.float32(1.0 / scale), dtype=np.float32)


def _measured(sample: Sample) -> int:
    """Camera pixels behind the valid pixels: a small part fills many sample pixels with the same few points."""
    t = sample.transform
    if t.side >= t.size:
        return int(sample.valid.sum())
    rows, cols = np.nonzero(sample.valid)
    rows, cols = t.source_rows()[rows], t.source_cols()[cols]
    if not len(rows):
        return 0
    seen = np.zeros((np.ptp(rows) + 1, np.ptp(cols) + 1), dtype=np.bool_)
    seen[rows - rows.min(), cols - cols.min()] = True
    return int(np.count_nonzero(seen))


def prepare_points(sample: Sample, preset: Points, scale_m: float, threads: int = 1) -> PointInput:
    """Sample, group and interpolate the valid points of ``sample`` (METHOD.md section 2), with up to two threads.

    Raises
    ------
    InvalidFrame
        Fewer valid points than one group holds.
    """
    points = np.ascontiguousarray(sample.xyz[sample.valid])
    measured = _measured(sample)
    if measured < preset.group_size:
        raise InvalidFrame(f"only {measured} valid points", f"at least {preset.group_size}, the size of one group")
    points = normalise(points, preset.normalize, scale_m)
    drawn = points
    if preset.stride > 1:
        lattice = np.zeros_like(sample.valid)
        lattice[:: preset.stride, :: preset.stride] = True
        drawn = points[lattice[sample.valid]]
    if len(drawn) < preset.group_size:
        raise InvalidFrame(f"only {len(drawn)} valid points", f"at least {preset.group_size}, the size of one group")
    blocks = arrange(drawn)
    centers = drawn[farthest_point_sample(drawn, preset.groups, blocks)]

    def group() -> tuple[F32, I64]:
        groups = group_points(drawn, centers, k_nearest(drawn, centers, preset.group_size, blocks))
        return groups, k_nearest(centers, centers, min(preset.pool, len(centers)))

    def interpolate() -> tuple[I64, F32]:
        return three_nearest(points, centers, blocks=blocks if drawn is points else None)

    (groups, pool), (index, weight) = share([group, interpolate], threads)
    return PointInput(groups, centers, index, weight, pool)
