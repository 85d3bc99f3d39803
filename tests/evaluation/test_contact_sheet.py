"""The contact sheet holds every picture where it belongs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation import contact_sheet as module
from edge_ad.evaluation.contact_sheet import MAX_ROWS, SheetRow, contact_sheet, render

S = 224


def row(**changes):
    valid = np.zeros((S, S), dtype=bool)
    valid[40:200, 30:190] = True
    gt = np.zeros((S, S), dtype=bool)
    gt[90:130, 80:120] = True
    depth = np.where(valid, np.linspace(0.5, 0.52, S)[:, None], 0.0).astype(np.float32)
    base = SheetRow(
        name="part",
        colour=np.full((S, S, 3), (10, 120, 230), dtype=np.uint8),
        depth=depth,
        map=(0.1 * valid + 0.8 * gt).astype(np.float32),
        mask=gt.copy(),
        score=0.9,
        decision="anomalous",
        gt=gt,
        valid=valid,
        threshold=0.4,
        note="bagel, hole",
    )
    return replace(base, **changes)


def tile(sheet, line, column, *, title=False):
    y = module._HEADER + (30 if title else 0) + line * (module._TILE + module._GAP)
    x = module._column_x(column)
    return sheet[y : y + module._TILE, x : x + module._TILE]


def at(picture, y, x):
    """Colour at sample pixel (y, x)."""
    return tuple(int(v) for v in picture[int((y + 0.5) * module._TILE / S), int((x + 0.5) * module._TILE / S)])


def test_tiles_show_what_they_should():
    sheet = render([row(), row(gt=None, decision="invalid")])
    assert at(tile(sheet, 0, 0), 100, 100) == (10, 120, 230)
    depth = tile(sheet, 0, 1)
    assert at(depth, 10, 10) == module._INVALID
    assert sum(at(depth, 45, 100)) > sum(at(depth, 195, 100))  # near is bright
    for column in (2, 4):
        picture = tile(sheet, 0, column)
        assert at(picture, 110, 100) == module._DEFECT
        assert at(picture, 60, 60) == module._PART
        assert at(picture, 10, 10) == module._OUTSIDE
    heat = tile(sheet, 0, 3)
    assert sum(at(heat, 110, 100)) > sum(at(heat, 60, 60)) > 0
    assert at(heat, 10, 10) == module._OUTSIDE
    assert at(tile(sheet, 1, 2), 10, 10) == (232, 232, 230)  # unknown ground truth


def test_scale_turns_at_the_threshold():
    """The same map is bright under a low threshold and dark under a high one."""
    sheet = render([row(threshold=0.1), row(threshold=5.0)])
    assert sum(at(tile(sheet, 0, 3), 110, 100)) > 2 * sum(at(tile(sheet, 1, 3), 110, 100))


def test_rows_without_threshold_share_a_scale():
    weak = row(threshold=None)
    weak = replace(weak, map=weak.map * np.float32(0.2))
    sheet = render([row(threshold=None), weak])
    assert sum(at(tile(sheet, 0, 3), 110, 100)) > 2 * sum(at(tile(sheet, 1, 3), 110, 100))


@pytest.mark.parametrize(
    "changes",
    [
        {"map": np.zeros((S, S), np.float32), "threshold": None},
        {"map": np.full((S, S), np.nan, np.float32), "score": float("nan"), "decision": "invalid"},
        {"depth": np.zeros((S, S), np.float32), "valid": None},
        {"depth": np.full((S, S), np.nan, np.float32)},
        {"name": "grüße/" + "x" * 300, "note": ""},
        {"threshold": 0.0},
    ],
)
def test_odd_rows_still_give_a_sheet(changes):
    sheet = render([row(**changes)])
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    # A caption never runs into the first picture.
    gap = sheet[module._HEADER : module._HEADER + module._TILE, module._column_x(0) - 3 : module._column_x(0)]
    assert (gap == module._PAPER).all()


def test_file_is_the_rendered_picture(tmp_path):
    rows = [row(), row(name="other", decision="normal", score=0.1)]
    contact_sheet(rows, tmp_path / "sheets" / "a.png", title="Title")
    read = cv2.imread(str(tmp_path / "sheets" / "a.png"))[..., ::-1]
    assert np.array_equal(read, render(rows, title="Title"))
    assert [p.name for p in (tmp_path / "sheets").iterdir()] == ["a.png"]
    assert not np.array_equal(tile(read, 0, 0, title=True), tile(read, 0, 4, title=True))


def test_refusals(tmp_path):
    for rows, words in [
        ([], "of 0 rows"),
        ([row()] * (MAX_ROWS + 1), f"1 to {MAX_ROWS}"),
        ([row(depth=np.zeros((4, 4), np.float32))], "depth of shape"),
    ]:
        with pytest.raises(EdgeAdError, match=words):
            contact_sheet(rows, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
