"""Frames with known geometry: boxes on a plane before a pinhole camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edge_ad.frame import Frame, Intrinsics
from edge_ad.presets import Geometry, load_preset


def intrinsics(height: int, width: int, focal: float = 0.0, distortion: tuple[float, ...] = ()) -> Intrinsics:
    focal = focal or float(max(height, width))
    return Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2, distortion)


def geometry(**changes: Any) -> Geometry:
    """The compact preset's geometry over the whole image, with a few fields changed."""
    return replace(load_preset("compact").geometry, **{"crop": "image", **changes})


def boxes(
    height: int,
    width: int,
    *parts: tuple[int, int, int, int],
    distance: float = 0.5,
    thickness: float = 0.03,
    **changes: Any,
) -> Frame:
    """A plane across the camera's axis with boxes on it.

    parts : (y0, y1, x0, x1), half open, camera pixels. distance, thickness : metres. changes : fields of the frame.
    """
    depth = np.full((height, width), round(distance * 1e4), np.uint16)
    colour = np.full((height, width, 3), 60, np.uint8)
    for y0, y1, x0, x1 in parts:
        depth[y0:y1, x0:x1] -= round(thickness * 1e4)
        colour[y0:y1, x0:x1] = 180
    fields: dict[str, Any] = {
        "colour": colour,
        "depth": depth,
        "depth_scale_m": 1e-4,
        "intrinsics": intrinsics(height, width),
        "name": "boxes",
    }
    return Frame(**{**fields, **changes})
