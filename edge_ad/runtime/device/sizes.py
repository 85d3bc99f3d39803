"""Sizes of one model's buffers."""

from __future__ import annotations

from dataclasses import dataclass

from edge_ad.bundle import Bundle
from edge_ad.runtime.kernels.launch import Buckets, consecutive_buckets, tile_buckets


@dataclass(frozen=True)
class Sizes:
    """All that buffers and launches are made from; fixed for a bundle.

    size : side of the sample grid; pixels : size squared. stride : of the lattice that groups are drawn from;
    score_stride : of the one whose pixels are scored.
    rgb_tokens, dim_rgb; groups, group_size, dim_points : of the networks. rgb_width, point_width : of the tables.
    levels : whether the tokens graph gives expected distances. drawn, near, every : buckets of the drawn points, of the
    centres and of all points.
    """

    size: int
    stride: int
    score_stride: int
    grid: int
    dim_rgb: int
    groups: int
    group_size: int
    dim_points: int
    pool: int
    rgb_width: int
    point_width: int
    classes: int
    levels: bool
    drawn: Buckets
    near: Buckets
    every: Buckets

    @property
    def pixels(self) -> int:
        """Pixels of the sample grid."""
        return self.size * self.size

    @property
    def rgb_tokens(self) -> int:
        """Colour tokens."""
        return self.grid * self.grid


def sizes_of(bundle: Bundle) -> Sizes:
    """Sizes from a bundle's preset and the tensors of its graphs."""
    p = bundle.preset
    widths = {t.name: int(t.shape[-1]) for t in bundle.graph("tokens").outputs}
    return Sizes(
        size=p.geometry.size,
        stride=p.points.stride,
        score_stride=bundle.stride,
        grid=p.rgb.grid,
        dim_rgb=int(bundle.graph("rgb").outputs[0].shape[1]),
        groups=p.points.groups,
        group_size=p.points.group_size,
        dim_points=int(bundle.graph("points").outputs[0].shape[1]),
        pool=min(p.points.pool, p.points.groups),
        rgb_width=widths["rgb_table"],
        point_width=widths["point_table"],
        classes=len(bundle.classes),
        levels="rgb_level" in widths,
        drawn=tile_buckets(p.geometry.size, p.points.stride),
        near=consecutive_buckets(p.points.groups),
        every=tile_buckets(p.geometry.size),
    )
