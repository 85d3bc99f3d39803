"""A picture of many results: one row a part, with colour, depth, ground truth, anomaly map and mask side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.files import write_image
from edge_ad.frame import F32, U8, Bool

COLUMNS = ("colour", "depth", "ground truth", "anomaly map", "mask")
MAX_ROWS = 250  # beyond, viewers refuse the PNG's height

_TILE = 192
_GAP = 10
_MARGIN = 18
_CAPTION = 212
_HEADER = 40
_FOOTER = 62

# RGB
_PAPER = (250, 250, 248)
_INK = (32, 34, 40)
_FAINT = (120, 124, 132)
_INVALID = (128, 128, 128)
_OUTSIDE = (30, 32, 38)
_PART = (84, 88, 98)
_DEFECT = (255, 196, 40)
_OUTLINE = (70, 224, 255)
_DECISIONS = {"normal": (38, 138, 82), "anomalous": (200, 48, 44), "invalid": (204, 134, 16)}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class SheetRow:
    """One part on the sample grid (S, S).

    Attributes
    ----------
    name : shown first. colour : (S, S, 3) uint8 RGB. depth : (S, S) float32 metres, 0 or not finite where unknown.
    map : (S, S) float32 anomaly map. mask : (S, S) bool, pixels called anomalous.
    score : of the part. decision : ``"normal" | "anomalous" | "invalid"``.
    gt : (S, S) bool, the drawn defect, or None when unknown.
    valid : (S, S) bool, the scored pixels; None means where depth is known.
    threshold : of the part's class, if known; it sets the colour scale of the map.
    note : one more line, e.g. class and kind of defect.
    """

    name: str
    colour: U8
    depth: F32
    map: F32
    mask: Bool
    score: float
    decision: str
    gt: Bool | None = None
    valid: Bool | None = None
    threshold: float | None = None
    note: str = ""


def contact_sheet(rows: Sequence[SheetRow], path: Path, *, title: str = "") -> None:
    """Write a PNG with one row a part.

    With a threshold, a row's map is coloured from 0 to twice the threshold, so that the middle of the scale is
    where the decision flips; rows without share one scale, from 0 to the highest 99.9 percentile among them.
    Depth is coloured over the range of the valid pixels, near is bright; unknown depth is grey. The outline of the
    ground truth is drawn on the map and the mask.

    Raises EdgeAdError when there is no row, more than ``MAX_ROWS``, or shapes of one row differ.
    """
    write_image(Path(path), render(rows, title=title))


def render(rows: Sequence[SheetRow], *, title: str = "") -> U8:
    """The contact sheet as (height, width, 3) uint8 RGB; see :func:`contact_sheet`."""
    if not 0 < len(rows) <= MAX_ROWS:
        raise EdgeAdError(f"a contact sheet of {len(rows)} rows", f"1 to {MAX_ROWS}", "choose fewer parts")
    for row in rows:
        _check(row)
    shared = max((_peak(r) for r in rows if not _has_scale(r)), default=0.0)
    shared = shared if shared > 0 else 1.0
    header = _HEADER + (30 if title else 0)
    width = 2 * _MARGIN + _CAPTION + len(COLUMNS) * (_TILE + _GAP) - _GAP
    height = header + len(rows) * (_TILE + _GAP) - _GAP + _FOOTER
    sheet: U8 = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    if title:
        _text(sheet, title, _MARGIN, 34, _INK, 0.68, 2)
    for i, column in enumerate(COLUMNS):
        _text(sheet, column, _column_x(i), header - 11, _FAINT, 0.5, 1)
    for i, row in enumerate(rows):
        y = header + i * (_TILE + _GAP)
        _caption(sheet, row, y)
        top = 2.0 * row.threshold if row.threshold is not None and _has_scale(row) else shared
        for j, tile in enumerate(_tiles(row, top)):
            x = _column_x(j)
            sheet[y : y + _TILE, x : x + _TILE] = tile
    _legend(sheet, rows, shared, height - _FOOTER + 16)
    return sheet


def _check(row: SheetRow) -> None:
    shape = row.map.shape
    others = {"colour": row.colour.shape[:2], "depth": row.depth.shape, "mask": row.mask.shape}
    if row.gt is not None:
        others["gt"] = row.gt.shape
    if row.valid is not None:
        others["valid"] = row.valid.shape
    for what, other in others.items():
        if other != shape:
            raise EdgeAdError(
                f"contact sheet, '{row.name}': {what} of shape {other}, map of {shape}", "one sample grid"
            )


def _has_scale(row: SheetRow) -> bool:
    return row.threshold is not None and row.threshold > 0


def _known_depth(row: SheetRow) -> Bool:
    return np.isfinite(row.depth) & (row.depth > 0)


def _valid(row: SheetRow) -> Bool:
    return _known_depth(row) if row.valid is None else row.valid.astype(bool)


def _peak(row: SheetRow) -> float:
    values = row.map[_valid(row)]
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 99.9)) if values.size else 0.0


def _column_x(i: int) -> int:
    return _MARGIN + _CAPTION + i * (_TILE + _GAP)


def _tiles(row: SheetRow, top: float) -> list[U8]:
    valid = _valid(row)
    heat = _colour_mapped(row.map, 0.0, top, cv2.COLORMAP_INFERNO)
    heat[~valid] = _OUTSIDE
    tiles = [
        _resize(np.ascontiguousarray(row.colour), smooth=True),
        _resize(_depth_picture(row, valid)),
        _resize(_silhouette(valid, row.gt)) if row.gt is not None else _unknown(),
        _resize(heat),
        _resize(_silhouette(valid, row.mask)),
    ]
    if row.gt is not None and row.gt.any():
        enlarged = cv2.resize(row.gt.astype(np.uint8), (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for tile in tiles[3:]:
            cv2.drawContours(tile, outline, -1, _OUTLINE, 1, cv2.LINE_8)
    return tiles


def _depth_picture(row: SheetRow, valid: Bool) -> U8:
    known = _known_depth(row)
    inside = known & valid
    span = row.depth[inside if inside.any() else known]
    low, high = (float(v) for v in np.percentile(span, (1, 99))) if span.size else (0.0, 1.0)
    # Near is bright; a flat part still gets 2 mm of range, so that noise does not fill the scale.
    high = max(high, low + 0.002)
    nearness = (high + low - np.where(known, row.depth, high)).astype(np.float32)
    picture = _colour_mapped(nearness, low, high, cv2.COLORMAP_VIRIDIS)
    picture[~known] = _INVALID
    return picture


def _silhouette(valid: Bool, defect: Bool) -> U8:
    picture = np.empty((*valid.shape, 3), dtype=np.uint8)
    picture[:] = _OUTSIDE
    picture[valid] = _PART
    picture[defect.astype(bool)] = _DEFECT
    return picture


def _unknown() -> U8:
    tile = np.full((_TILE, _TILE, 3), (232, 232, 230), dtype=np.uint8)
    _text(tile, "unknown", _TILE // 2 - 31, _TILE // 2 + 5, _FAINT, 0.5, 1)
    return tile


def _colour_mapped(values: F32, low: float, high: float, colours: int) -> U8:
    finite = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scaled = np.clip((finite - low) / (high - low), 0.0, 1.0) * 255.0
    bgr = cv2.applyColorMap(scaled.astype(np.uint8), colours)
    return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)


def _resize(picture: U8, *, smooth: bool = False) -> U8:
    how = cv2.INTER_NEAREST
    if smooth:
        how = cv2.INTER_AREA if picture.shape[0] > _TILE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (_TILE, _TILE), interpolation=how), dtype=np.uint8)


def _caption(sheet: U8, row: SheetRow, y: int) -> None:
    room = _CAPTION - 14
    _text(sheet, row.name, _MARGIN, y + 18, _INK, 0.54, 1, room)
    if row.note:
        _text(sheet, row.note, _MARGIN, y + 41, _FAINT, 0.44, 1, room)
    _text(sheet, f"score {row.score:.4g}", _MARGIN, y + 72, _INK, 0.5, 1, room)
    if row.threshold is not None:
        _text(sheet, f"threshold {row.threshold:.4g}", _MARGIN, y + 94, _FAINT, 0.44, 1, room)
    colour = _DECISIONS.get(row.decision, _FAINT)
    (w, _), _ = cv2.getTextSize(row.decision, _FONT, 0.5, 1)
    chip = y + 110
    cv2.rectangle(sheet, (_MARGIN, chip), (_MARGIN + w + 18, chip + 26), colour, -1)
    _text(sheet, row.decision, _MARGIN + 9, chip + 18, (255, 255, 255), 0.5, 1, room)


def _legend(sheet: U8, rows: Sequence[SheetRow], shared: float, y: int) -> None:
    x = _column_x(3)
    ramp = np.linspace(0.0, 1.0, _TILE, dtype=np.float32)[None].repeat(10, axis=0)
    sheet[y : y + 10, x : x + _TILE] = _colour_mapped(ramp, 0.0, 1.0, cv2.COLORMAP_INFERNO)
    with_threshold = any(_has_scale(r) for r in rows)
    middle, right = ("threshold", "x2") if with_threshold else ("", f"{shared:.3g}")
    _text(sheet, "0", x, y + 26, _FAINT, 0.42, 1)
    _text(sheet, middle, x + _TILE // 2 - 30, y + 26, _FAINT, 0.42, 1)
    _text(sheet, right, x + _TILE - _text_width(right, 0.42, 1), y + 26, _FAINT, 0.42, 1)
    keys = ((_DEFECT, "defect", 0, 0), (_PART, "scored", 84, 0), (_OUTLINE, "outline of the ground truth", 0, 18))
    for colour, what, right_by, down_by in keys:
        left, key_y = _column_x(4) + right_by, y + down_by
        cv2.rectangle(sheet, (left, key_y), (left + 10, key_y + 10), colour, -1)
        _text(sheet, what, left + 16, key_y + 10, _FAINT, 0.42, 1)
    depth = sheet[y : y + 10, _column_x(1) : _column_x(1) + _TILE]
    depth[:] = _colour_mapped(ramp, 0.0, 1.0, cv2.COLORMAP_VIRIDIS)
    _text(sheet, "far", _column_x(1), y + 26, _FAINT, 0.42, 1)
    _text(sheet, "(grey: none)", _column_x(1) + _TILE // 2 - 38, y + 26, _FAINT, 0.42, 1)
    _text(sheet, "near", _column_x(2) - _GAP - _text_width("near", 0.42, 1), y + 26, _FAINT, 0.42, 1)


def _text_width(text: str, scale: float, thickness: int) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, thickness)[0][0])


def _text(
    picture: U8, text: str, x: int, y: int, colour: tuple[int, int, int], scale: float, thickness: int, room: int = 0
) -> None:
    # OpenCV 4's built-in font knows ASCII only; a text too long for its column loses its beginning, since the names
    # of files differ at their ends.
    shown = text.encode("ascii", "replace").decode("ascii")
    if room and _text_width(shown, scale, thickness) > room:
        while len(shown) > 1 and _text_width("..." + shown, scale, thickness) > room:
            shown = shown[1:]
        shown = "..." + shown
    cv2.putText(picture, shown, (x, y), _FONT, scale, colour, thickness, cv2.LINE_AA)
