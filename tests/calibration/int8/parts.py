"""Frames of the tiny data, good and spoilt, for the tests of INT8."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from edge_ad.data.dataset import Dataset, Item
from edge_ad.frame import Bool, Frame
from tests.training.tiny import HEIGHT, WIDTH, make_frame, tiny_dataset


def frames(count: int = 4) -> list[tuple[Frame, str]]:
    return [(make_frame(name, i), name) for i in range(count) for name in ("hex_nut", "cookie")]


def spoilt(number: int) -> Frame:
    """A part with a patch of another colour, a bump with it."""
    frame = make_frame("cookie", number)
    colour, depth = frame.colour.copy(), frame.depth
    assert depth is not None
    depth = depth.copy()
    colour[26:36, 30:40] = (250, 20, 220)
    depth[26:36, 30:40] -= 60
    return replace(frame, colour=colour, depth=depth)


def patch() -> Bool:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[26:36, 30:40] = True
    return mask


def labelled() -> Dataset:
    """The tiny data with a test split of good and spoilt cookies."""
    good = [
        Item(f"cookie/good/{i}", "cookie", "test", "good", Path("g.png"), partial(make_frame, "cookie", 20 + i), _none)
        for i in range(3)
    ]
    bad = [
        Item(f"cookie/test/patch/{i}", "cookie", "test", "patch", Path("p.png"), partial(spoilt, 30 + i), patch)
        for i in range(3)
    ]
    base = tiny_dataset()
    return Dataset(base.root, base.layout, (*base.items, *good, *bad))


def _none() -> Bool | None:
    return None
