"""Tiles: overlapping windows over a region that one sample could not resolve finely enough."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from edge_ad.frame import Bool

Box = tuple[int, int, int, int]


def lay_tiles(region: Box, side: int, overlap: float) -> tuple[Box, ...]:
    """Square windows (y0, x0, y1, x1) of ``side`` pixels that cover ``region``, each over at least ``overlap`` (a share
    of the side) of its neighbour. They may reach beyond the region where it is smaller than a tile.

    >>> lay_tiles((0, 0, 100, 160), 100, 0.2)
    ((0, 0, 100, 100), (0, 60, 100, 160))
    """
    y0, x0, y1, x1 = region
    return tuple(
        (top, left, top + side, left + side)
        for top in _starts(y0, y1, side, overlap)
        for left in _starts(x0, x1, side, overlap)
    )


def within(box: Box, shape: tuple[int, ...]) -> Bool:
    """(H, W) bool: the pixels of a window that lie in the image."""
    mask = np.zeros(shape, dtype=np.bool_)
    mask[max(0, box[0]) : max(0, box[2]), max(0, box[1]) : max(0, box[3])] = True
    return mask


def divide(parts: Sequence[tuple[Bool, Bool]], tiles: Sequence[Box]) -> Iterator[tuple[Bool, Bool, Box | None]]:
    """Each part's (foreground, outline), cut into the tiles that it reaches; whole, with None, where there are no
    tiles.

    A tile that holds a sliver alone, all of which its neighbours hold as well, is left out. What lies in no tile at all
    stays together as one more sample, so that nothing is lost in silence.
    """
    for foreground, outline in parts:
        if not tiles:
            yield foreground, outline, None
            continue
        masks = [within(tile, foreground.shape) for tile in tiles]
        counts = [int((foreground & mask).sum()) for mask in masks]
        kept = [i for i, count in enumerate(counts) if count]
        for i in sorted(kept, key=lambda i: counts[i]):
            others = [masks[k] for k in kept if k != i]
            covered = bool(others) and not (foreground & masks[i] & ~np.any(others, axis=0)).any()
            if counts[i] < 0.05 * masks[i].sum() and covered:
                kept.remove(i)
        for i in kept:
            yield foreground & masks[i], outline & masks[i], tiles[i]
        rest = ~np.any(masks, axis=0)
        if (foreground & rest).any():
            yield foreground & rest, outline & rest, None


def _starts(low: int, high: int, side: int, overlap: float) -> list[int]:
    length = high - low
    if length <= side:
        return [low - (side - length) // 2]
    count = 1 + math.ceil((length - side) / max(1, math.floor(side * (1 - overlap))))
    return [low + round(i * (length - side) / (count - 1)) for i in range(count)]
