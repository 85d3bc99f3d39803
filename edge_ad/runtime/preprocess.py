"""From a Frame to Samples: the one preprocessing of training, evaluation and the device (METHOD.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, U8, Bool, Frame, Sample, SampleTransform
from edge_ad.presets import Geometry
from edge_ad.runtime.geometry import border_ring, clusters, fit_plane, frame_xyz
from edge_ad.runtime.scene_check import SceneSetup, check, same_setup
from edge_ad.runtime.tiles import divide, within

CUT_OFF = "part cut off by the frame"
PART_MARGIN, ROI_MARGIN = 0.04, 0.02
"""Free rim around a part's enclosing circle and around the region of interest, as a share of their size."""


@dataclass(frozen=True)
class Scene:
    """What is known of a fixed set-up, on the camera's grid.

    roi : (H, W) bool, the region that is inspected, or None for all of it.
    expected_depth : (H, W) bool, pixels that have depth in >= 95 % of the good frames, or None.
    setup : what ``edge-ad calibrate scene`` measured: the plane is then a test per pixel, and frames are held against
    it.
    """

    roi: Bool | None = None
    expected_depth: Bool | None = None
    setup: SceneSetup | None = None


@dataclass(frozen=True)
class Preprocessed:
    """The samples of one frame, the cloud they were cut from, notes for the result, and why it is degraded, if so."""

    samples: tuple[Sample, ...]
    xyz: F32
    notes: tuple[str, ...] = ()
    health: tuple[str, ...] = ()


@dataclass
class Preprocessor:
    """Callable: ``(frame, class_name) -> Preprocessed``. ``scenes`` are looked up by class name."""

    geometry: Geometry
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scenes: dict[str, Scene] = field(default_factory=dict)

    def __call__(self, frame: Frame, class_name: str | None = None) -> Preprocessed:
        """Cut one sample per part (or one in all, by ``geometry.crop``).

        Raises
        ------
        InvalidFrame
            No depth, no part, sizes that do not match, or a region of interest of another size.
        """
        g = self.geometry
        xyz = frame_xyz(frame)
        scene = self.scene_of(class_name)
        has_depth = xyz[..., 2] > 0
        usable = has_depth
        if g.max_depth_m > 0:
            usable = usable & (xyz[..., 2] <= g.max_depth_m)
        inside = _same_size(scene.roi, frame, "region of interest")
        if inside is None and g.crop == "roi":
            raise InvalidFrame(
                f"class '{class_name}' has no region of interest",
                'one, for geometry.crop = "roi"',
                "put a roi.png beside the recordings before fitting",
            )
        if inside is not None:
            usable = usable & inside
        if not usable.any():
            raise InvalidFrame("no pixel has depth inside the region of interest and the depth limit")
        notes: list[str] = []
        parts: list[tuple[Bool, Bool]] = []  # (foreground, outline), each (H, W)
        if g.background == "plane":
            if scene.setup is not None:  # fitted once, at calibration (METHOD section 1)
                plane = scene.setup.plane
            else:
                ring = xyz[border_ring(usable, g.border_share, inside)]
                plane = fit_plane(ring, g.plane_distance_m, g.ransac_iterations)
            above = usable & (plane.height(xyz) > g.plane_distance_m)
            found, small = clusters(above, usable, max(1, round(g.cluster_min_area * above.size)))
            if small:
                notes.append(f"{small} small cluster{'s' if small > 1 else ''} not scored")
            if not found:
                raise InvalidFrame("no part stands above the supporting plane", "a part in view")
            parts = [(c.mask, c.outline) for c in found]
            if g.crop != "part":
                parts = [(np.any([p[0] for p in parts], axis=0), np.any([p[1] for p in parts], axis=0))]
        else:
            parts = [(usable, inside if inside is not None else np.ones_like(usable))]
        expected = _same_size(scene.expected_depth, frame, "expected depth")
        samples = []
        tiles = () if scene.setup is None else scene.setup.tiles
        for foreground, outline, tile in divide(parts, tiles):
            if g.pose == "fixed":
                lost = np.zeros_like(usable) if expected is None else expected & ~has_depth
                lost = lost if inside is None else lost & inside
            else:
                lost = outline & ~has_depth
            if g.background == "none" and g.pose == "free":
                lost = np.zeros_like(usable)  # without a part's outline nothing says where depth should be
            if tile is None:
                transform = self._window(frame.shape, inside, foreground)
            else:
                lost &= outline | foreground if g.pose == "free" else within(tile, lost.shape)
                transform = SampleTransform(tile[0], tile[1], tile[2] - tile[0], g.size, *frame.shape)
            cut_off = g.background == "plane" and inside is None and _touches_border(foreground)
            if scene.setup is not None and g.background == "plane" and inside is not None and g.crop == "part":
                cut_off = _touches_border(foreground) or bool((foreground & _rim(inside)).any())
            samples.append(self._cut(frame.colour, xyz, foreground, lost, transform, (CUT_OFF,) if cut_off else ()))
        health = () if scene.setup is None else check(scene.setup, frame, xyz)
        return Preprocessed(tuple(samples), xyz, tuple(notes), health)

    def scene_of(self, class_name: str | None) -> Scene:
        """The class's scene; for ``auto`` the one that all classes share, as one camera has one plane."""
        if class_name in self.scenes:
            return self.scenes[class_name or ""]
        setups = [scene.setup for scene in self.scenes.values()]
        if setups and setups[0] is not None and all(s is not None and same_setup(s, setups[0]) for s in setups):
            return next(iter(self.scenes.values()))
        return Scene()

    def _window(self, shape: tuple[int, int], roi: Bool | None, foreground: Bool) -> SampleTransform:
        h, w = shape
        size = self.geometry.size
        if self.geometry.crop == "part":
            # The enclosing circle, not the box: a part that lies turned keeps its scale.
            contours, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            (x, y), radius = cv2.minEnclosingCircle(np.concatenate(contours))
            side = round(2 * (radius + 1) * (1 + 2 * PART_MARGIN))
            return SampleTransform(round(y - side / 2), round(x - side / 2), side, size, h, w)
        margin = ROI_MARGIN if self.geometry.crop == "roi" else 0.0
        box = roi if self.geometry.crop == "roi" and roi is not None else np.ones(shape, dtype=np.bool_)
        y0, y1, x0, x1 = _bounds(box)
        side = round(max(y1 - y0, x1 - x0) * (1 + 2 * margin))
        # Integer division rounds the same way for both modalities because there is one window.
        return SampleTransform((y0 + y1 - side) // 2, (x0 + x1 - side) // 2, side, size, h, w)

    def _cut(
        self, colour: U8, xyz: F32, foreground: Bool, lost: Bool, t: SampleTransform, notes: tuple[str, ...]
    ) -> Sample:
        small = resize_colour(colour, t)
        table = _normalised(tuple(self.mean), tuple(self.std))
        valid = mask_to_sample(foreground, t)
        cloud = np.asarray(nearest_to_sample(xyz, t), np.float32)
        cloud[~valid] = 0
        return Sample(
            rgb=np.stack([table[channel][small[..., channel]] for channel in range(3)]),
            xyz=cloud,
            valid=valid,
            lost=mask_to_sample(lost, t),
            transform=t,
            notes=notes,
        )


@lru_cache(maxsize=8)
def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> F32:
    """(3, 256) float32: what each of the 256 values of a channel is for the networks; looked up, not computed again."""
    scaled = np.arange(256, dtype=np.uint8).astype(np.float32)[:, None] / np.float32(255)
    table = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(table.T)


def nearest_to_sample(image: NDArray[np.generic], t: SampleTransform) -> NDArray[np.generic]:
    """(H, W, ...) -> (S, S, ...) by nearest pixel centre; zeros outside the image. Never interpolates."""
    rows, cols = t.source_rows(), t.source_cols()
    inside = ((rows >= 0) & (rows < t.frame_height))[:, None] & ((cols >= 0) & (cols < t.frame_width))[None, :]
    out = image.take(np.clip(rows, 0, t.frame_height - 1), axis=0).take(np.clip(cols, 0, t.frame_width - 1), axis=1)
    if not inside.all():
        out[~inside] = 0
    return out


def mask_to_sample(mask: Bool, t: SampleTransform) -> Bool:
    """(H, W) bool on the camera's grid -> (S, S) bool on the sample grid, nearest."""
    return np.asarray(nearest_to_sample(mask, t), dtype=np.bool_)


def resize_colour(colour: U8, t: SampleTransform) -> U8:
    """(H, W, 3) uint8 -> (S, S, 3) uint8: pad, crop, antialiased bicubic (a = -0.5) by Pillow.

    What lies outside the image repeats its border pixels, so that the padding draws no edge of its own.
    """
    y1, x1 = t.y0 + t.side, t.x0 + t.side
    before = (max(0, -t.y0), max(0, -t.x0))
    after = (max(0, y1 - t.frame_height), max(0, x1 - t.frame_width))
    crop = colour[max(0, t.y0) : y1, max(0, t.x0) : x1]
    if any(before) or any(after):
        crop = np.pad(crop, ((before[0], after[0]), (before[1], after[1]), (0, 0)), mode="edge")
    image = Image.fromarray(np.ascontiguousarray(crop))
    return np.asarray(image.resize((t.size, t.size), Image.Resampling.BICUBIC), dtype=np.uint8)


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


def _same_size(mask: Bool | None, frame: Frame, what: str) -> Bool | None:
    if mask is not None and mask.shape != frame.shape:
        h, w = frame.shape
        raise InvalidFrame(
            f"a frame of {w} x {h} pixels",
            f"{mask.shape[1]} x {mask.shape[0]}, the size of the {what}",
            "use the camera mode that the model was fitted with",
        )
    return mask
