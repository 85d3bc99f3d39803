"""Frames and results as the runtime would give them, small and with known content."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_ad.frame import Frame, Region, Result

SHAPE = (48, 64)


def a_frame(shape: tuple[int, int] = SHAPE, **changes: Any) -> Frame:
    colour = np.full((*shape, 3), (90, 100, 110), np.uint8)
    depth = np.full(shape, 500, np.uint16)
    return Frame(**{"colour": colour, "depth": depth, "name": "part", **changes})


def a_region(box: tuple[int, int, int, int] = (20, 10, 40, 30), **changes: Any) -> Region:
    fields: dict[str, Any] = {
        "box": box,
        "area_px": (box[2] - box[0]) * (box[3] - box[1]),
        "area_mm2": 123.4,
        "peak": 2.0,
        "position_mm": (1.0, 2.0, 500.0),
        "extent_mm": (10.0, 10.0, 1.0),
    }
    return Region(**{**fields, **changes})


def a_result(shape: tuple[int, int] = SHAPE, **changes: Any) -> Result:
    """Anomalous: a square of twice the threshold at rows 10..30, columns 20..40."""
    values = np.zeros(shape, np.float32)
    values[10:30, 20:40] = 2.0
    fields: dict[str, Any] = {
        "decision": "anomalous",
        "health": "ok",
        "reasons": (),
        "class_name": "hex nut",
        "score": 2.0,
        "threshold": 1.0,
        "map": values,
        "mask": values > 1.0,
        "regions": (a_region(),),
        "name": "part",
    }
    return Result(**{**fields, **changes})


def an_invalid_result(**changes: Any) -> Result:
    fields: dict[str, Any] = {
        "decision": "invalid",
        "reasons": ("depth is all zero",),
        "score": float("nan"),
        "threshold": float("nan"),
        "map": None,
        "mask": None,
        "regions": (),
    }
    return a_result(**{**fields, **changes})
