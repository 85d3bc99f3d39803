"""Scene calibration: what a fixed camera sees, measured once on a few dozen frames.

The supporting plane, the region of interest and its tiles, the working distance band, the belt's direction, the noise
of depth and the millimetres a pixel; and from these the smallest defect that this set-up can show.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ad.calibration.scene_measure import (
    FIT_M,
    belt_motion,
    bounds,
    cloud_of,
    depth_noise,
    find_plane,
    find_region,
    median_cloud,
    median_colour,
    pixel_size_mm,
    reach_m,
    tallest_m,
)
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, U8, Bool, Frame
from edge_ad.runtime.scene_check import SEEN_STRIDE, SceneSetup
from edge_ad.runtime.tiles import Box, lay_tiles

SAMPLES_ACROSS = 3
"""Pixels, of the sample and of the camera, that a defect must cover to show."""
SIGMAS = 3.0
MOST_FRAMES = 64


@dataclass(frozen=True)
class SceneOptions:
    """Wishes of the user. sample : pixels along a side of the networks' input. defect_mm : the smallest defect that
    must show (0: none named; then one sample sees the whole region). overlap : of neighbouring tiles, a share of a
    tile. part_height_mm : tallest part (0: as seen in the frames).
    """

    sample: int = 224
    defect_mm: float = 0.0
    overlap: float = 0.2
    part_height_mm: float = 0.0


@dataclass(frozen=True)
class SceneReport:
    """What was measured. roi : (H, W) bool. colour : (H, W, 3) uint8, the median picture. xyz : (H, W, 3) metres, the
    median cloud. on_plane : (H, W) bool."""

    setup: SceneSetup
    roi: Bool
    colour: U8
    xyz: F32
    on_plane: Bool
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """For people."""
        s = self.setup
        across, deep = s.smallest_mm
        tilt = np.degrees(np.arccos(min(1.0, -s.plane.normal[2])))
        moving = float(np.hypot(*s.belt_px))
        lines = [
            f"supporting plane: {s.plane.offset * 1e3:.1f} mm from the camera, tilted by {tilt:.1f} degrees, "
            f"flat to {s.flatness_m * 1e3:.2f} mm",
            f"region of interest: {self.roi.mean():.0%} of the picture, {len(s.tiles) or 1} "
            f"tile{'s' if len(s.tiles) > 1 else ''}",
            f"working distance: {s.band_m[0] * 1e3:.0f} to {s.band_m[1] * 1e3:.0f} mm",
            f"depth noise: {s.noise_m * 1e3:.3f} mm; {s.mm_per_pixel:.3f} mm a pixel",
            f"smallest defect that can show: {across:.2f} mm across, {deep:.2f} mm deep or high",
        ]
        if moving > 0:
            direction = np.degrees(np.arctan2(s.belt_px[1], s.belt_px[0]))
            lines.append(
                f"belt: {moving:.1f} pixels ({moving * s.mm_per_pixel:.1f} mm) a frame, {direction:.0f} degrees "
                "(0: to the right, 90: down)"
            )
        return lines


def calibrate_scene(
    frames: Sequence[Frame], options: SceneOptions | None = None, roi: Bool | None = None, camera: str = ""
) -> SceneReport:
    """Measure a scene from frames of one fixed camera; parts may lie or move in it, as long as the plane shows.

    Parameters
    ----------
    frames : at least 2, of one size; at most 64 are looked at, evenly spaced.
    roi : (H, W) bool, what is inspected; None: where the plane is seen and what it encloses.

    Raises
    ------
    EdgeAdError
        Too few frames, different sizes, no depth, no plane, or a region outside the plane.
    """
    options = options or SceneOptions()
    if len(frames) < 2:
        raise EdgeAdError(f"{len(frames)} frames with depth", "at least 2", "let the camera run a little longer")
    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int))]
    sizes = {f.shape for f in chosen}
    if len(sizes) > 1:
        raise EdgeAdError(f"frames of {len(sizes)} sizes", "one camera mode")
    clouds = [cloud_of(f) for f in chosen]
    height, width = chosen[0].shape
    if roi is not None and roi.shape != (height, width):
        raise EdgeAdError(
            f"a region of interest of {roi.shape[1]} x {roi.shape[0]} pixels", f"{width} x {height}, as the camera"
        )
    xyz, known = median_cloud(clouds)
    plane = find_plane(xyz, known if roi is None else known & roi)
    heights = plane.height(xyz)
    on_plane = known & (np.abs(heights) < FIT_M)
    share = float(on_plane.sum() / max(1, known.sum()))
    warnings: list[str] = []
    if share < 0.3:
        warnings.append(
            f"only {share:.0%} of the depth lies on the supporting plane: calibrate with an empty scene, or give --roi"
        )
    flatness = float(np.sqrt(np.mean(heights[on_plane].astype(np.float64) ** 2)))
    noise = depth_noise(clouds, on_plane)
    if roi is None:
        roi = find_region(on_plane, known, heights)
    seen = np.ascontiguousarray(on_plane[::SEEN_STRIDE, ::SEEN_STRIDE])
    if int(seen.sum()) < 30:
        raise EdgeAdError(
            "too little of the supporting plane is visible", "more of it around the parts", "take some parts away"
        )
    tolerance = max(3 * noise, 2 * flatness, 0.0015)
    shares = [float((np.abs(plane.height(c[::SEEN_STRIDE, ::SEEN_STRIDE]))[seen] < tolerance).mean()) for c in clouds]
    mm_per_pixel = pixel_size_mm(plane, roi & on_plane if (roi & on_plane).any() else on_plane, xyz)
    y0, x0, y1, x1 = bounds(roi)
    side = max(y1 - y0, x1 - x0)
    tiles: tuple[Box, ...] = ()
    if options.defect_mm > 0:
        tiles, told = _tiles((y0, x0, y1, x1), side, mm_per_pixel, options)
        warnings += told
    window = tiles[0][2] - tiles[0][0] if tiles else side
    across = SAMPLES_ACROSS * mm_per_pixel * max(1.0, window / options.sample)
    belt = belt_motion(chosen, roi)
    tallest = options.part_height_mm / 1e3 or 1.5 * tallest_m(plane, clouds, roi, tolerance)
    floor = xyz[..., 2][roi & on_plane] if (roi & on_plane).any() else xyz[..., 2][on_plane]
    setup = SceneSetup(
        height=height,
        width=width,
        plane=plane,
        seen=seen,
        least_seen=min(shares),
        band_m=(float(max(0.0, floor.min() - tallest - 0.02)), float(floor.max() + 0.02)),
        noise_m=noise,
        flatness_m=flatness,
        mm_per_pixel=mm_per_pixel,
        smallest_mm=(across, SIGMAS * noise * 1e3),
        belt_px=belt,
        tiles=tiles,
        tile_overlap=options.overlap if tiles else 0.0,
        shift_limit_m=max(0.003, 3 * noise),
        tilt_limit_deg=max(0.5, float(np.degrees(3 * noise / reach_m(xyz, on_plane)))),
        notes={
            "camera": camera,
            "frames": len(chosen),
            "set_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "sample": options.sample,
        },
    )
    return SceneReport(setup, roi, median_colour(chosen), xyz, on_plane, tuple(warnings))


def _tiles(region: Box, side: int, mm_per_pixel: float, options: SceneOptions) -> tuple[tuple[Box, ...], list[str]]:
    """Tiles fine enough for the defect asked for, and what stands against it."""
    if SAMPLES_ACROSS * mm_per_pixel > options.defect_mm:
        needed = options.defect_mm / SAMPLES_ACROSS
        told = (
            f"a defect of {options.defect_mm:g} mm needs {needed:.3f} mm a pixel, and the camera gives "
            f"{mm_per_pixel:.3f}: bring it to {needed / mm_per_pixel:.0%} of its distance, or use a finer mode"
        )
        return (), [told]
    most = int(options.sample * options.defect_mm / (SAMPLES_ACROSS * mm_per_pixel))
    if side <= most:
        return (), []
    return lay_tiles(region, most, options.overlap), []
