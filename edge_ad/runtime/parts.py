"""A frame's parts: which pixels each has, where depth is lost, and the window that it is cut by (METHOD.md section 1).

The pixels themselves are tested elsewhere (:class:`Pixels`): on the CPU over the cloud, or by kernels on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, Bool, SampleTransform
from edge_ad.presets import Geometry
from edge_ad.runtime.geometry import Plane, border_ring, clusters, fit_plane
from edge_ad.runtime.scene_check import SceneSetup
from edge_ad.runtime.tiles import divide, within

CUT_OFF = "part cut off by the frame"
PART_MARGIN, ROI_MARGIN = 0.04, 0.02
"""Free rim around a part's enclosing circle and around the region of interest, as a share of their size."""


class Pixels(Protocol):
    """What the pixels of a camera's grid are."""

    @property
    def has_depth(self) -> Bool:
        """(H, W) bool."""

    @property
    def usable(self) -> Bool:
        """(H, W) bool: those with depth inside the region of interest and the depth limit."""

    def points(self, mask: Bool) -> F32:
        """(n, 3) float32 metres of the pixels of ``mask`` (H, W), row by row."""

    def above(self, plane: Plane, distance_m: float) -> Bool:
        """(H, W) bool: usable pixels more than ``distance_m`` above a plane."""


@dataclass(frozen=True)
class Piece:
    """What one sample is cut from: foreground and lost depth, (H, W) bool each, the window, and notes."""

    foreground: Bool
    lost: Bool
    transform: SampleTransform
    notes: tuple[str, ...] = ()


def find_pieces(
    g: Geometry, setup: SceneSetup | None, inside: Bool | None, expected: Bool | None, pixels: Pixels
) -> tuple[list[Piece], tuple[str, ...]]:
    """The pieces of a frame and notes about it.

    Parameters
    ----------
    setup : the calibrated scene. inside, expected : region of interest and expected depth, (H, W) bool, or None.

    Raises
    ------
    InvalidFrame
        No usable pixel, no plane, or no part above it.
    """
    usable, has_depth, shape = pixels.usable, pixels.has_depth, pixels.usable.shape
    if not usable.any():
        raise InvalidFrame(*NOT_USABLE)
    notes: tuple[str, ...] = ()
    if g.background == "plane":
        parts, notes = _parts_above_plane(g, setup, inside, pixels)
    else:
        parts = [(usable, inside if inside is not None else np.ones_like(usable))]
    pieces = []
    for foreground, outline, tile in divide(parts, () if setup is None else setup.tiles):
        if g.pose == "fixed":
            lost = np.zeros_like(usable) if expected is None else expected & ~has_depth
            lost = lost if inside is None else lost & inside
        else:
            lost = outline & ~has_depth
        if g.background == "none" and g.pose == "free":
            lost = np.zeros_like(usable)  # without a part's outline nothing says where depth should be
        if tile is None:
            transform = window(g, (shape[0], shape[1]), inside, foreground)
        else:
            lost &= outline | foreground if g.pose == "free" else within(tile, lost.shape)
            transform = SampleTransform(tile[0], tile[1], tile[2] - tile[0], g.size, shape[0], shape[1])
        cut_off = g.background == "plane" and inside is None and _touches_border(foreground)
        if setup is not None and g.background == "plane" and inside is not None and g.crop == "part":
            cut_off = _touches_border(foreground) or bool((foreground & _rim(inside)).any())
        pieces.append(Piece(foreground, lost, transform, (CUT_OFF,) if cut_off else ()))
    return pieces, notes


NOT_USABLE = ("no pixel has depth inside the region of interest and the depth limit",)


def _parts_above_plane(
    g: Geometry, setup: SceneSetup | None, inside: Bool | None, pixels: Pixels
) -> tuple[list[tuple[Bool, Bool]], tuple[str, ...]]:
    """(foreground, outline) of every cluster above the supporting plane, or of all as one."""
    if setup is not None:  # fitted once, at calibration
        plane = setup.plane
    else:
        ring = pixels.points(border_ring(pixels.usable, g.border_share, inside))
        plane = fit_plane(ring, g.plane_distance_m, g.ransac_iterations)
    above = pixels.above(plane, g.plane_distance_m)
    found, small = clusters(above, pixels.usable, max(1, round(g.cluster_min_area * above.size)))
    if not found:
        raise InvalidFrame("no part stands above the supporting plane", "a part in view")
    parts = [(c.mask, c.outline) for c in found]
    if g.crop != "part":
        parts = [(np.any([p[0] for p in parts], axis=0), np.any([p[1] for p in parts], axis=0))]
    return parts, (f"{small} small cluster{'s' if small > 1 else ''} not scored",) if small else ()


def window(g: Geometry, shape: tuple[int, int], roi: Bool | None, foreground: Bool | None) -> SampleTransform:
    """The square that a part is cut by. ``foreground`` is asked for only by ``crop = "part"``."""
    h, w = shape
    if g.crop == "part":
        assert foreground is not None
        # The enclosing circle, not the box: a part that lies turned keeps its scale.
        contours, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        (x, y), radius = cv2.minEnclosingCircle(np.concatenate(contours))
        side = round(2 * (radius + 1) * (1 + 2 * PART_MARGIN))
        return SampleTransform(round(y - side / 2), round(x - side / 2), side, g.size, h, w)
    margin = ROI_MARGIN if g.crop == "roi" else 0.0
    y0, y1, x0, x1 = _bounds(roi) if g.crop == "roi" and roi is not None else (0, h, 0, w)
    side = round(max(y1 - y0, x1 - x0) * (1 + 2 * margin))
    # Integer division rounds the same way for both modalities because there is one window.
    return SampleTransform((y0 + y1 - side) // 2, (x0 + x1 - side) // 2, side, g.size, h, w)


def _bounds(mask: Bool) -> tuple[int, int, int, int]:
    """(y0, y1, x0, x1), half open, of the True pixels."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1


def _touches_border(mask: Bool) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _rim(region: Bool) -> Bool:
    """The outermost pixels of a region."""
    inner = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(region & (inner == 0), dtype=np.bool_)
