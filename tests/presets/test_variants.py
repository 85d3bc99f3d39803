"""The words in which variants are written."""

from __future__ import annotations

import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.presets import load_preset
from edge_ad.presets.variants import parse_variants, point_taps, vary


def test_published_choices_of_blocks() -> None:
    assert point_taps(12) == [3, 7, 11] and point_taps(8) == [1, 4, 7] and point_taps(4) == [1, 2, 3]
    assert [point_taps(n) for n in (1, 2, 3, 6)] == [[0], [0, 1], [0, 1, 2], [1, 3, 5]]


def test_names_dials_and_lists() -> None:
    found = parse_variants("light: groups=256, points-stride=3; layers=4,groups=128;x:points.taps=[0, 1], hidden=64;")
    assert found == {
        "light": {"groups": "256", "points-stride": "3"},
        "layers4-groups128": {"layers": "4", "groups": "128"},
        "x": {"points.taps": "[0, 1]", "hidden": "64"},
    }


def test_dials_change_the_preset() -> None:
    compact, paper = load_preset("compact"), load_preset("paper")
    small = vary(compact, {"layers": "4", "groups": "256", "rgb-layers": "5", "mappers.hidden": "64"})
    assert small.points.taps == (1, 2, 3) and small.points.groups == 256 and small.points.depth == compact.points.depth
    assert small.rgb.taps == (2, 4) and small.mappers.hidden == 64 and small.geometry == compact.geometry
    short = vary(paper, {"layers": "8", "rgb-layers": "6"})
    assert short.points.taps == (1, 4, 7) and short.rgb.blocks == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing is named"),
        ("a:", "no dial"),
        ("a: groups", "DIAL=VALUE"),
        ("a: groups=1, groups=2", "given twice"),
        ("a: groups=1; a: groups=2", "two named 'a'"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, says: str) -> None:
    with pytest.raises(EdgeAdError, match=says):
        parse_variants(text)


@pytest.mark.parametrize(
    ("dials", "says"),
    [
        ({"speed": "9"}, "unknown dial 'speed'"),
        ({"fusion.beta": "0"}, "unknown dial 'fusion.beta'"),
        ({"layers": "many"}, "a number of blocks"),
        ({"layers": "99"}, "at most 6"),
        ({"rgb-layers": "1"}, "leaves no tap"),
        ({"groups": "a few"}, "type int"),
    ],
)
def test_dials_out_of_range_are_refused(dials: dict[str, str], says: str) -> None:
    with pytest.raises(EdgeAdError, match=says):
        vary(load_preset("compact"), dials)
