"""The sensitivity table as a picture: a bar a block. Lean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge_ad.files import write_image
from edge_ad.frame import U8

if TYPE_CHECKING:
    from edge_ad.calibration.int8.sensitivity import Sensitivity

ROW, BARS, FONT = 22, 420, cv2.FONT_HERSHEY_SIMPLEX
INT8, FP16, TEXT, FAINT = (66, 120, 190), (214, 110, 60), (30, 30, 30), (150, 150, 150)


def draw(report: Sensitivity) -> U8:
    """(H, W, 3) uint8 RGB: the blocks from the costliest down, bars of the map's error, the drop written beside."""
    rows = [(f"{b.graph} {b.block}", b.outcome.map_error, b.drop, b.kept) for b in report.blocks]
    rows.append(("all in INT8", report.everything.map_error, report.everything.drop(report.base), False))
    if report.left_out:
        rows.append(("with FP16 blocks", report.final.map_error, report.final.drop(report.base), True))
    text_width = max(cv2.getTextSize(name, FONT, 0.45, 1)[0][0] for name, *_ in rows) + 24
    height, width = ROW * (len(rows) + 3) + 12, text_width + BARS + 130
    picture = np.full((height, width, 3), 255, np.uint8)
    title = "INT8: error of the map a block (RMS, relative to float32) and drop in points"
    _write(picture, title, 12, ROW, TEXT)
    longest = max([e for _, e, _, _ in rows] + [1e-9])
    for i, (name, error, drop, kept) in enumerate(rows):
        y = ROW * (i + 2)
        _write(picture, name, 12, y + 15, TEXT)
        end = text_width + int(round(BARS * error / longest))
        colour = FP16 if kept else INT8
        cv2.rectangle(picture, (text_width, y + 4), (max(end, text_width + 1), y + ROW - 4), colour, -1)
        _write(picture, f"{error:.4f}  {drop:+.2f}", end + 8, y + 15, TEXT)
    legend = f"orange: left in FP16.  allowed drop {report.max_drop:g}, {report.parts} parts"
    _write(picture, legend, 12, height - 12, FAINT)
    return picture


def _write(picture: U8, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, (x, y), FONT, 0.45, colour, 1, cv2.LINE_AA)


def save(report: Sensitivity, path: Path) -> None:
    """Write the picture (PNG by its suffix)."""
    write_image(path, draw(report))
