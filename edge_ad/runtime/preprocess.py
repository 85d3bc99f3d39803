"""From a Frame to Samples: the one preprocessing of training, evaluation and the device (METHOD.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, U8, Bool, Frame, Sample, SampleTransform
from edge_ad.presets import Geometry
from edge_ad.runtime.geometry import Plane, frame_xyz
from edge_ad.runtime.parts import find_pieces
from edge_ad.runtime.scene_check import SEEN_STRIDE, SceneSetup, check, same_setup


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


@dataclass(frozen=True)
class HostPixels:
    """:class:`edge_ad.runtime.parts.Pixels` of a cloud (H, W, 3) in the host's memory."""

    xyz: F32
    has_depth: Bool
    usable: Bool

    @staticmethod
    def of(xyz: F32, max_depth_m: float, inside: Bool | None) -> HostPixels:
        """Pixels with depth, up to ``max_depth_m`` (0: any) and inside a region (None: everywhere)."""
        has_depth = xyz[..., 2] > 0
        usable = has_depth
        if max_depth_m > 0:
            usable = usable & (xyz[..., 2] <= max_depth_m)
        return HostPixels(xyz, has_depth, usable if inside is None else usable & inside)

    def points(self, mask: Bool) -> F32:
        """Of the pixels of a mask."""
        return self.xyz[mask]

    def above(self, plane: Plane, distance_m: float) -> Bool:
        """Usable pixels above a plane."""
        return np.asarray(self.usable & (plane.height(self.xyz) > distance_m), dtype=np.bool_)


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
        xyz = frame_xyz(frame)
        scene = self.scene_of(class_name)
        inside, expected = self.masks(scene, frame, class_name)
        pixels = HostPixels.of(xyz, self.geometry.max_depth_m, inside)
        pieces, notes = find_pieces(self.geometry, scene.setup, inside, expected, pixels)
        samples = [self._cut(frame.colour, xyz, p.foreground, p.lost, p.transform, p.notes) for p in pieces]
        health = () if scene.setup is None else check(scene.setup, frame.shape, xyz[::SEEN_STRIDE, ::SEEN_STRIDE])
        return Preprocessed(tuple(samples), xyz, notes, health)

    def masks(self, scene: Scene, frame: Frame, class_name: str | None) -> tuple[Bool | None, Bool | None]:
        """The scene's region of interest and expected depth for a frame, (H, W) bool or None.

        Raises
        ------
        InvalidFrame
            They are of another size than the frame, or there is no region and ``geometry.crop`` is ``roi``.
        """
        inside = _same_size(scene.roi, frame, "region of interest")
        if inside is None and self.geometry.crop == "roi":
            raise InvalidFrame(
                f"class '{class_name}' has no region of interest",
                'one, for geometry.crop = "roi"',
                "put a roi.png beside the recordings before fitting",
            )
        return inside, _same_size(scene.expected_depth, frame, "expected depth")

    def scene_of(self, class_name: str | None) -> Scene:
        """The class's scene; for ``auto`` the one that all classes share, as one camera has one plane."""
        if class_name in self.scenes:
            return self.scenes[class_name or ""]
        setups = [scene.setup for scene in self.scenes.values()]
        if setups and setups[0] is not None and all(s is not None and same_setup(s, setups[0]) for s in setups):
            return next(iter(self.scenes.values()))
        return Scene()

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


def _same_size(mask: Bool | None, frame: Frame, what: str) -> Bool | None:
    if mask is not None and mask.shape != frame.shape:
        h, w = frame.shape
        raise InvalidFrame(
            f"a frame of {w} x {h} pixels",
            f"{mask.shape[1]} x {mask.shape[0]}, the size of the {what}",
            "use the camera mode that the model was fitted with",
        )
    return mask
