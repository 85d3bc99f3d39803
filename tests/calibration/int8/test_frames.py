"""Frames to calibrate on: what is refused, and how they are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import (
    calibrate_int8,
)
from edge_ad.calibration.int8.frames import frames_of_camera, frames_of_data, refuse_constant, spread
from edge_ad.errors import EdgeAdError
from tests.calibration.int8.parts import frames
from tests.training.tiny import make_frame, tiny_dataset


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: replace(f, colour=np.full_like(f.colour, 7)), "the colour of .* is 7 everywhere"),
        (lambda f: replace(f, depth=np.full_like(f.depth, 900)), "the depth of .* is 900 everywhere"),
    ],
)
def test_constant_frames_are_refused(change, text: str, bundle: Bundle) -> None:  # type: ignore[no-untyped-def]
    shown = [(change(f), c) for f, c in frames(2)]
    with pytest.raises(EdgeAdError, match=text):
        calibrate_int8(bundle, shown, "somewhere")
    assert Bundle.open(bundle.path).precisions == ("fp32",)


def test_no_frames_the_same_frame_and_frames_without_a_part_are_refused(bundle: Bundle) -> None:
    with pytest.raises(EdgeAdError, match="gave no readable frame"):
        refuse_constant([], "camera")
    with pytest.raises(EdgeAdError, match="all 3 frames are the same"):
        refuse_constant([frames(1)[0]] * 3, "camera")
    empty = [(make_frame("cookie", -1 - i), "cookie") for i in range(2)]
    with pytest.raises(EdgeAdError, match="none of the calibration frames could be scored"):
        calibrate_int8(bundle, empty, "somewhere")


def test_frames_are_spread_over_the_classes(bundle: Bundle) -> None:
    data = tiny_dataset({"hex_nut": (2, 9), "cookie": (2, 9)})
    chosen = spread(data.select(split="validation"), 6)
    assert [i.class_name for i in chosen] == ["hex_nut"] * 3 + ["cookie"] * 3
    assert [i.name.rpartition("/")[2] for i in chosen[:3]] == ["2", "6", "10"]
    assert len(frames_of_data(bundle, data, 6)) == 6
    taken = frames_of_camera("synthetic:gear?frames=3", 2, "cookie")
    assert [c for _, c in taken] == ["cookie", "cookie"]
