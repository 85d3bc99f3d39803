"""The part's own grid: height, albedo and ink maps in millimetres, and the fields they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32

Rng = np.random.Generator
Field = NDArray[np.floating[Any]]

SIDE_MM = 112.0  # larger than any part, so that the grid's border is always supporting plane
PITCH_MM = 0.28
CELLS = round(SIDE_MM / PITCH_MM)


@dataclass(frozen=True)
class PartMaps:
    """One part as maps over its own plane, (N, N) cells of ``PITCH_MM``; row 0 is y = -SIDE/2.

    height : (N, N) float32 mm above the supporting plane, 0 beside the part.
    albedo : (N, N, 3) float32 linear reflectance, ink included. gloss : (N, N) float32 specular weight.
    ink : (N, N) float32 coverage of the print. bare : (N, N, 3) albedo without the print.
    core : (3,) albedo of the material inside, seen where the part is broken.
    colour_height : (N, N) float32 mm, the surface that the colour camera sees. It is ``height``
    except for depth-only defects, whose colour must not give them away.
    """

    height: F32
    albedo: F32
    gloss: F32
    ink: F32
    bare: F32
    core: F32
    colour_height: F32

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(N, N) True on the part."""
        return self.height > 0.5


@lru_cache(maxsize=1)
def coordinates() -> tuple[F32, F32, F32, F32]:
    """(x, y, radius, angle) of the cell centres, each (N, N) float32, mm and radians."""
    axis = ((np.arange(CELLS) + 0.5) * PITCH_MM - SIDE_MM / 2).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    r = np.hypot(x, y).astype(np.float32)
    phi = np.arctan2(y, x).astype(np.float32)
    for a in (x, y, r, phi):
        a.flags.writeable = False
    return x, y, r, phi


def step(distance: Field, soft: float = 0.4) -> F32:
    """1 where ``distance`` > 0, 0 elsewhere, over a smooth edge ``soft`` mm wide."""
    t = np.clip(distance / np.float32(soft) + np.float32(0.5), 0, 1).astype(np.float32)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def band(r: Field, inner: float, outer: float, soft: float = 0.4) -> F32:
    """1 between two radii, with soft edges."""
    return step(r - np.float32(inner), soft) * step(np.float32(outer) - r, soft)


def blur(field: F32, sigma_mm: float) -> F32:
    """Gaussian blur by ``sigma_mm``; wide kernels run on a coarser grid."""
    sigma = sigma_mm / PITCH_MM
    if sigma < 4:
        return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma), dtype=np.float32)
    factor = int(sigma / 2)
    size = max(CELLS // factor, 8)
    small = cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * size / CELLS)
    return np.asarray(cv2.resize(small, (CELLS, CELLS), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def noise(rng: Rng, scale_mm: float) -> F32:
    """(N, N) smooth Gaussian field, mean 0, deviation 1, features about ``scale_mm`` wide."""
    size = max(int(SIDE_MM / scale_mm) + 3, 5)
    if size >= CELLS:
        return rng.standard_normal((CELLS, CELLS), dtype=np.float32)
    coarse = rng.standard_normal((size, size), dtype=np.float32)
    field = cv2.resize(coarse, (CELLS, CELLS), interpolation=cv2.INTER_CUBIC)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), dtype=np.float32)


def paint(albedo: F32, colour: tuple[float, float, float] | F32, weight: Field) -> F32:
    """Blend ``colour`` over ``albedo`` with (N, N) ``weight`` in [0, 1]."""
    blended: F32 = np.asarray(colour, dtype=np.float32) - albedo
    blended *= weight.astype(np.float32)[..., None]
    blended += albedo
    return blended


def _coverage(canvas: NDArray[np.uint8]) -> F32:
    """Grey levels as shares; read-only, because the texts are the same on every part and are kept."""
    share: F32 = canvas.astype(np.float32) / np.float32(255)
    share.flags.writeable = False
    return share


@lru_cache(maxsize=8)
def flat_text(text: str, x_mm: float, y_mm: float, height_mm: float, width_mm: float = 0.9) -> F32:
    """(N, N) coverage of a line of text whose lower left corner is at (x, -y): y points down while drawing.

    The camera sees the part's y axis upwards, so the drawing is turned over.
    """
    canvas = np.zeros((CELLS, CELLS), dtype=np.uint8)
    scale = height_mm / PITCH_MM / 21.0  # the Hershey simplex capitals are 21 units high
    origin = (round((x_mm + SIDE_MM / 2) / PITCH_MM), round((y_mm + SIDE_MM / 2) / PITCH_MM))
    thickness = max(round(width_mm / PITCH_MM), 1)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return _coverage(canvas[::-1])


@lru_cache(maxsize=16)
def _strip(text: str, width: int, height: int, thickness: int) -> NDArray[np.uint8]:
    canvas = np.zeros((height, width), dtype=np.uint8)
    scale = height * 0.72 / 21.0
    (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    wide = np.zeros((height, max(w + 4, 8)), dtype=np.uint8)
    cv2.putText(wide, text, (2, int(height * 0.85)), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    canvas[:] = cv2.resize(wide, (width, height), interpolation=cv2.INTER_AREA)
    return canvas


@lru_cache(maxsize=32)
def arc_text(text: str, inner: float, outer: float, start: float, span: float, width_mm: float = 0.9) -> F32:
    """(N, N) coverage of text bent along an arc between two radii, clockwise from ``start`` over ``span`` radians."""
    _, _, r, phi = coordinates()
    height = max(int((outer - inner) / PITCH_MM) * 2, 8)
    width = max(int((inner + outer) / 2 * span / PITCH_MM) * 2, 16)
    strip = _strip(text, width, height, max(round(2 * width_mm / PITCH_MM), 1))
    u = np.mod(-phi - np.float32(start), np.float32(2 * np.pi)) * np.float32(width / span)
    v = (np.float32(outer) - r) * np.float32(height / (outer - inner))
    sampled = cv2.remap(strip, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderValue=0.0)
    return _coverage(np.asarray(sampled, dtype=np.uint8))
