"""Seeded variations of a frame, for training sets of very few good frames (a fixed scene, one frame a view).

What a line changes from frame to frame without a defect is imitated: exposure, white balance, sensor noise, focus,
speckle in the depth and a camera that moved by a pixel. Colour and depth always move together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data.dataset import Item
from edge_ad.frame import U8, Frame

MAX_SHIFT = 3  # pixels


def augment(frame: Frame, seed: int, *, rotate: bool = False) -> Frame:
    """One variation of ``frame``; the same seed gives the same bytes.

    Parameters
    ----------
    frame : as a camera gave it.
    seed : any non-negative integer.
    rotate : also turn the frame by a random multiple of 90 degrees about the optical axis (parts in varying pose).
        Frames with lens distortion are not turned. Mirror images are never made: they would be other parts.
    """
    rng = np.random.default_rng(seed)
    depth = None if frame.depth is None else _depth_noise(frame.depth, rng)
    xyz = frame.xyz
    if xyz is not None:
        z = xyz[..., 2]
        noisy = _depth_noise(z, rng)
        # Noise along the pixel's ray keeps the point on its pixel.
        scale = np.divide(noisy, z, out=np.zeros_like(z), where=np.isfinite(z) & (z > 0))
        xyz = (xyz * scale[..., None]).astype(np.float32)
    out = dataclasses.replace(frame, colour=_colour(frame.colour, rng), depth=depth, xyz=xyz)
    dy, dx = (int(v) for v in rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2))
    out = _shift(out, dy, dx)
    turns = int(rng.integers(0, 4))
    if rotate and not (frame.intrinsics and frame.intrinsics.distortion):
        out = rot90(out, turns)
    return out


def _colour(image: U8, rng: np.random.Generator) -> U8:
    x = image.astype(np.float32) / 255
    x = np.clip(x, 0, 1) ** rng.uniform(0.85, 1.18)  # gamma
    mean = x.mean(axis=(0, 1), keepdims=True)
    x = (x - mean) * rng.uniform(0.88, 1.12) + mean  # contrast
    warm = rng.uniform(-0.05, 0.05)  # colour temperature: red against blue
    x *= rng.uniform(0.88, 1.12) * np.array([1 + warm, 1, 1 - warm])  # brightness
    sigma = rng.uniform(0, 0.9)
    if sigma > 0.3:
        x = cv2.GaussianBlur(x.astype(np.float32), (0, 0), sigma)
    x = x + rng.normal(0, rng.uniform(0.002, 0.014), x.shape)
    return np.asarray(np.clip(x, 0, 1) * 255 + 0.5, dtype=np.uint8)


def _depth_noise(depth: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Noise of half the frame's own measured level, and a few dropouts (value 0)."""
    d = depth.astype(np.float32)
    known = np.isfinite(d) & (d > 0)
    if not known.any():
        return depth
    residual = d - cv2.medianBlur(np.where(known, d, 0).astype(np.float32), 3)
    level = float(np.median(np.abs(residual[known]))) * 1.4826
    smallest = 1.0 if np.issubdtype(depth.dtype, np.integer) else float(np.median(d[known])) * 2e-4
    d = d + rng.normal(0, 0.5 * max(level, smallest), d.shape).astype(np.float32)
    speckle = rng.random(d.shape) < rng.uniform(0, 0.002)
    for _ in range(int(rng.integers(0, 4))):
        cy, cx, radius = rng.integers(d.shape[0]), rng.integers(d.shape[1]), int(rng.integers(1, 3))
        speckle[max(0, cy - radius) : cy + radius + 1, max(0, cx - radius) : cx + radius + 1] = True
    d = np.where(known & ~speckle, d, 0)
    if np.issubdtype(depth.dtype, np.integer):
        return np.clip(np.rint(d), 0, np.iinfo(depth.dtype).max).astype(depth.dtype)
    return d.astype(depth.dtype)


def _shift(frame: Frame, dy: int, dx: int) -> Frame:
    """Move the picture by whole pixels; what comes in repeats the border. The cloud keeps its coordinates."""

    def move(a: NDArray[Any]) -> NDArray[Any]:
        h, w = a.shape[:2]
        rows = np.clip(np.arange(h) - dy, 0, h - 1)
        cols = np.clip(np.arange(w) - dx, 0, w - 1)
        return np.ascontiguousarray(a[rows][:, cols])

    k = frame.intrinsics
    return dataclasses.replace(
        frame,
        colour=move(frame.colour),
        depth=None if frame.depth is None else move(frame.depth),
        xyz=None if frame.xyz is None else move(frame.xyz),
        intrinsics=None if k is None else dataclasses.replace(k, ppx=k.ppx + dx, ppy=k.ppy + dy),
    )


def rot90(frame: Frame, turns: int) -> Frame:
    """Turn a frame counter-clockwise by ``turns`` x 90 degrees about the optical axis, intrinsics and cloud with it."""
    for _ in range(turns % 4):
        k = frame.intrinsics
        xyz = frame.xyz
        if xyz is not None:
            # Image x points right and y down: one turn to the left maps (x, y) to (y, -x).
            xyz = np.stack([xyz[..., 1], -xyz[..., 0], xyz[..., 2]], axis=-1)
            xyz = np.ascontiguousarray(np.rot90(xyz))
        if k is not None:
            k = dataclasses.replace(
                k, width=k.height, height=k.width, fx=k.fy, fy=k.fx, ppx=k.ppy, ppy=k.width - 1 - k.ppx
            )
        frame = dataclasses.replace(
            frame,
            colour=np.ascontiguousarray(np.rot90(frame.colour)),
            depth=None if frame.depth is None else np.ascontiguousarray(np.rot90(frame.depth)),
            xyz=xyz,
            intrinsics=k,
        )
    return frame


@dataclasses.dataclass(frozen=True)
class _Variation:
    """Reads a variation of an item's frame; picklable, so that a worker process can."""

    item: Item
    seed: int
    rotate: bool

    def __call__(self) -> Frame:
        return augment(self.item.frame(), self.seed, rotate=self.rotate)


def _unknown() -> None:
    return None


def augmented_items(items: Sequence[Item], count: int, *, rotate: bool, seed: int = 1_000_003) -> list[Item]:
    """Every item and ``count`` variations of it, as items. Their ground truth is unknown: variations move pixels."""
    out = list(items)
    for number, item in enumerate(items):
        for n in range(count):
            read = _Variation(item, seed + number * 10_007 + n, rotate)
            out.append(dataclasses.replace(item, name=f"{item.name}~{n}", read_frame=read, read_truth=_unknown))
    return out
