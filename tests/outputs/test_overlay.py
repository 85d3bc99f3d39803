from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.outputs.overlay import (
    AMBER,
    BOX,
    DECISION_COLOURS,
    HEAD_HEIGHT,
    LINE_HEIGHT,
    LOST,
    NOTE_LINES,
    draw_overlay,
    heat_colours,
)
from tests.outputs.helpers import a_frame, a_region, a_result, an_invalid_result

BANNER_HEIGHT = HEAD_HEIGHT + NOTE_LINES * LINE_HEIGHT + 6


def picture_of(image: np.ndarray) -> np.ndarray:
    """The camera image's part, below the banner."""
    return image[BANNER_HEIGHT:]


def near(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 30) -> np.ndarray:
    return (np.abs(image.astype(int) - np.array(colour)) <= tolerance).all(axis=-1)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((48, 64), (480, 640)), ((480, 640), (480, 640)), ((320, 320), (640, 640)), ((1080, 1920), (720, 1280))],
)
def test_small_frames_grow_and_large_ones_shrink(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = draw_overlay(a_frame(shape), an_invalid_result())
    assert image.dtype == np.uint8
    assert image.shape == (size[0] + BANNER_HEIGHT, size[1], 3)


@pytest.mark.parametrize("reasons", [(), ("one",), ("a long reason that goes on and on " * 20,), ("a", "b", "c", "d")])
def test_the_size_depends_on_the_frame_alone(reasons: tuple[str, ...]) -> None:
    assert draw_overlay(a_frame(), a_result(reasons=reasons)).shape == (480 + BANNER_HEIGHT, 640, 3)


@pytest.mark.parametrize("decision", ["normal", "anomalous", "invalid"])
def test_the_plate_has_the_decisions_colour(decision: str) -> None:
    image = draw_overlay(a_frame(), a_result(decision=decision))
    assert tuple(image[2, 2]) == DECISION_COLOURS[decision]


def test_decisions_differ_in_more_than_hue() -> None:
    assert len({sum(c) for c in DECISION_COLOURS.values()}) == 3
    assert DECISION_COLOURS["invalid"] == AMBER


def test_heat_stands_where_the_map_is_high_and_nowhere_else() -> None:
    frame = a_frame()
    image = picture_of(draw_overlay(frame, a_result(mask=None, regions=())))
    changed = (image != 0) & (image != np.array((90, 100, 110), np.uint8))
    rows, cols = np.nonzero(changed.any(axis=-1))
    # x 10: rows 10..30 and columns 20..40, and the slope of the interpolation around them
    assert 90 <= rows.min() <= 100 and 299 <= rows.max() <= 309
    assert 190 <= cols.min() <= 200 and 399 <= cols.max() <= 409


def test_a_map_below_half_the_threshold_leaves_the_image_alone() -> None:
    result = a_result(decision="normal", threshold=4.0, mask=None, regions=())
    image = picture_of(draw_overlay(a_frame(), result))
    assert (image == np.array((90, 100, 110), np.uint8)).all()


def test_the_outline_follows_the_mask() -> None:
    result = a_result(map=np.zeros((48, 64), np.float32), regions=())
    white = near(picture_of(draw_overlay(a_frame(), result)), (255, 255, 255), 60)
    rows, cols = np.nonzero(white)
    assert (abs(rows.min() - 100), abs(rows.max() - 299)) <= (2, 2)
    assert (abs(cols.min() - 200), abs(cols.max() - 399)) <= (2, 2)
    assert not white[150:250, 250:350].any()


def test_boxes_are_red_and_lost_depth_is_blue() -> None:
    depth = np.full((48, 64), 500, np.uint16)
    depth[5:15, 45:60] = 0
    lost = a_region((45, 5, 60, 15), kind="lost-depth", peak=0.0)
    image = picture_of(draw_overlay(a_frame(depth=depth), a_result(regions=(a_region(), lost))))
    assert near(image[90:310, 190:410], BOX, 10).sum() > 400
    assert near(image[45:155, 445:605], LOST, 10).sum() > 400
    # hatched inside, and the label lies outside the hatched part
    inside = image[60:140, 460:590].reshape(-1, 3)
    assert 0.2 < near(inside, LOST, 70).mean() < 0.8


def test_hatching_stands_only_where_depth_is_missing() -> None:
    depth = np.full((48, 64), 500, np.uint16)
    depth[5:15, 45:52] = 0
    lost = a_region((45, 5, 60, 15), kind="lost-depth")
    image = picture_of(draw_overlay(a_frame(depth=depth), a_result(map=None, mask=None, regions=(lost,))))
    assert (image[70:130, 530:590] == np.array((90, 100, 110), np.uint8)).all()
    assert (image[70:130, 460:510] != np.array((90, 100, 110), np.uint8)).any()


def test_invalid_before_scoring_is_dimmed() -> None:
    image = picture_of(draw_overlay(a_frame(), an_invalid_result()))
    assert (image < 90).all()


def test_the_camera_image_is_not_written_to() -> None:
    frame = a_frame((480, 640))
    before = frame.colour.copy()
    draw_overlay(frame, a_result((480, 640)))
    assert np.array_equal(frame.colour, before)


def test_xyz_frames_hatch_too() -> None:
    xyz = np.full((48, 64, 3), 0.5, np.float32)
    xyz[5:15, 45:60] = 0
    lost = a_region((45, 5, 60, 15), kind="lost-depth")
    frame = a_frame(depth=None, xyz=xyz)
    image = picture_of(draw_overlay(frame, a_result(map=None, mask=None, regions=(lost,))))
    assert near(image[60:140, 460:590], LOST, 70).any()


@pytest.mark.parametrize("threshold", [float("nan"), 0.0, -1.0, float("inf")])
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1.0])
def test_odd_numbers_do_not_stop_the_picture(threshold: float, value: float) -> None:
    values = np.full((48, 64), value, np.float32)
    image = draw_overlay(a_frame(), a_result(map=values, threshold=threshold, score=value))
    assert image.shape == (480 + BANNER_HEIGHT, 640, 3)


@given(
    st.lists(
        st.tuples(st.integers(0, 63), st.integers(0, 47), st.integers(1, 64), st.integers(1, 48)),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=15)
def test_any_regions_can_be_drawn(boxes: list[tuple[int, int, int, int]]) -> None:
    regions = tuple(a_region((x, y, min(x + w, 64), min(y + h, 48))) for x, y, w, h in boxes)
    image = draw_overlay(a_frame(), a_result(regions=regions))
    assert near(picture_of(image), BOX, 10).any()


def test_heat_grows_brighter_with_the_map() -> None:
    colours = heat_colours(np.linspace(0.5, 2.0, 16, dtype=np.float32)).astype(int)
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    assert colours.shape == (16, 3)
    assert (np.diff(luminance) > 0).all()


def test_health_shows_on_the_plate() -> None:
    well = a_result(decision="invalid")
    ill = dataclasses.replace(well, health="degraded")
    assert not np.array_equal(draw_overlay(a_frame(), well)[:66, :160], draw_overlay(a_frame(), ill)[:66, :160])
