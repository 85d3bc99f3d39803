"""Tiles cover their region, overlap, and lose no pixel of a part."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.tiles import divide, lay_tiles, within


@settings(max_examples=40)
@given(
    st.integers(0, 50), st.integers(0, 50), st.integers(1, 300), st.integers(1, 300), st.integers(20, 200), st.data()
)
def test_tiles_cover_the_region_and_overlap(y: int, x: int, h: int, w: int, side: int, data: st.DataObject) -> None:
    overlap = data.draw(st.floats(0, 0.5))
    tiles = lay_tiles((y, x, y + h, x + w), side, overlap)
    covered = np.zeros((y + h, x + w), bool)
    for tile in tiles:
        assert tile[2] - tile[0] == side == tile[3] - tile[1]
        covered |= within(tile, covered.shape)
    assert covered[y:, x:].all()
    lefts = sorted({t[1] for t in tiles})
    assert all(a + side - b >= overlap * side - 1 for a, b in zip(lefts, lefts[1:]))


@given(st.integers(0, 2**31 - 1), st.integers(8, 40))
def test_every_pixel_of_a_part_is_in_a_sample(seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    foreground = np.zeros((60, 80), bool)
    y, x = int(rng.integers(0, 40)), int(rng.integers(0, 60))
    foreground[y : y + int(rng.integers(1, 40)), x : x + int(rng.integers(1, 40))] = True
    tiles = lay_tiles((5, 5, 50, 70), side, 0.2)
    seen = np.zeros_like(foreground)
    for piece, outline, tile in divide([(foreground, foreground)], tiles):
        assert piece.any() and not (piece & ~outline).any()
        if tile is not None:
            assert not (piece & ~within(tile, piece.shape)).any()
        seen |= piece
    assert (seen == foreground).all()


def test_without_tiles_the_parts_stay_whole() -> None:
    mask = np.ones((4, 4), bool)
    assert [tile for _, _, tile in divide([(mask, mask)], ())] == [None]


def test_a_sliver_that_the_neighbour_holds_as_well_is_left_out() -> None:
    part = np.zeros((40, 100), bool)
    part[5:35, 2:41] = True  # reaches two columns into the second tile's overlap
    tiles = ((0, 0, 40, 40), (0, 38, 40, 78), (0, 60, 40, 100))
    pieces = [tile for _, _, tile in divide([(part, part)], tiles)]
    assert pieces == [tiles[0], tiles[1]]  # column 40 is only in the second
    part[:, 40] = False
    assert [tile for _, _, tile in divide([(part, part)], tiles)] == [tiles[0]]
