"""Where on a part a defect goes, and its outline: irregular ovals and wandering lines."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data.synthetic.grid import CELLS, PITCH_MM, PartMaps, Rng, coordinates
from edge_ad.frame import F32

SAFE_MM = 6.5  # higher than what background removal cuts away with the plane (5 mm)


def centre(maps: PartMaps, rng: Rng, where: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """A random cell of ``where`` (by default: on top of the part, away from steep walls), in mm."""
    if where is None:
        grad = cv2.morphologyEx(maps.height, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
        where = (maps.height > SAFE_MM) & (grad < 2.5)
    cells = np.flatnonzero(where)
    if len(cells) == 0:
        cells = np.flatnonzero(maps.mask)
    row, col = divmod(int(cells[rng.integers(len(cells))]), CELLS)
    x, y, _, _ = coordinates()
    return float(x[row, col]), float(y[row, col])


def blob(rng: Rng, x0: float, y0: float, area: float, wobble: float = 0.18) -> F32:
    """(N, N) distance to an irregular oval's rim in units of its radius: 0 centre, 1 rim, > 1 outside."""
    x, y, _, _ = coordinates()
    aspect, turn = rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    dx, dy = x - x0, y - y0
    u, v = (dx * c + dy * s) * float(np.sqrt(aspect)), (dy * c - dx * s) / float(np.sqrt(aspect))
    rho, phi = np.hypot(u, v), np.arctan2(v, u)
    rim = np.ones_like(rho)
    for k in range(2, 7):
        rim += float(rng.normal(0, wobble / k)) * np.cos(k * phi + float(rng.uniform(0, 2 * np.pi)))
    return np.asarray(rho / (np.sqrt(area / np.pi) * np.maximum(rim, 0.4)), dtype=np.float32)


def path(maps: PartMaps, rng: Rng, length: float, jag: float, bend: float, pitch: float = 1.0) -> NDArray[np.float32]:
    """(P, 2) points in mm of a random walk within the part's outline (it may cross bores and slots)."""
    x0, y0 = centre(maps, rng)
    points = [(x0, y0)]
    angle, turn = float(rng.uniform(0, 2 * np.pi)), 0.0
    inside = cv2.morphologyEx(maps.mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((41, 41), np.uint8))
    for _ in range(max(int(length / pitch), 2)):
        turn = 0.8 * turn + float(rng.normal(0, bend))
        angle += turn
        heading = angle + float(rng.normal(0, jag))
        for attempt in range(12):
            a = heading + (attempt // 2 + 1) * 0.5 * (-1) ** attempt * (attempt > 0)
            x1, y1 = points[-1][0] + pitch * np.cos(a), points[-1][1] + pitch * np.sin(a)
            row, col = _cell(y1), _cell(x1)
            if 0 <= row < CELLS and 0 <= col < CELLS and inside[row, col]:
                angle += a - heading
                break
        else:
            break
        points.append((float(x1), float(y1)))
    return np.asarray(points, dtype=np.float32)


def _cell(mm: float) -> int:
    return int((mm + CELLS * PITCH_MM / 2) / PITCH_MM)


def stroke(paths: list[NDArray[np.float32]], width: float) -> F32:
    """(N, N) in [0, 1]: 1 on the middle of the lines, 0 at ``width / 2`` and beyond."""
    canvas = np.full((CELLS, CELLS), 255, dtype=np.uint8)
    for points in paths:
        cells = np.round((points / PITCH_MM + CELLS / 2) * 16).astype(np.int32)
        cv2.polylines(canvas, [cells.reshape(-1, 1, 2)], False, 0, 1, cv2.LINE_AA, 4)
    distance = cv2.distanceTransform((canvas > 96).astype(np.uint8), cv2.DIST_L2, 5) * PITCH_MM
    return np.asarray(np.clip(1 - distance / np.float32(width / 2), 0, 1), dtype=np.float32)
