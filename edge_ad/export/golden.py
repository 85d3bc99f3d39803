"""Golden frames: a few frames of the user's own data, half with a planted defect, and the reference's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_ad.bundle import GoldenFrame
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.export.reference import score_reference
from edge_ad.frame import F32, Bool, Frame
from edge_ad.models.detector import ReferenceDetector
from edge_ad.runtime.preprocess import Preprocessor

RADIUS_SHARE = 0.12
"""Radius of a planted defect, as a share of the square root of the part's area."""


def plant_defect(frame: Frame, part: Bool, seed: int) -> Frame:
    """A copy of ``frame`` with a foreign body painted on it: another colour and a bump towards the camera.

    Parameters
    ----------
    part : (H, W) bool, pixels of the part with depth. seed : where it lies and what colour it has.
    """
    rng = np.random.default_rng(seed)
    rows, cols = np.nonzero(part)
    i = int(rng.integers(len(rows)))
    radius = max(3.0, RADIUS_SHARE * float(np.sqrt(part.sum())))
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    squared = ((y - rows[i]) ** 2 + (x - cols[i]) ** 2) / radius**2
    inside = squared < 1
    colour = frame.colour.copy()
    paint = (255 - colour[inside].mean(axis=0)) * 0.7 + rng.uniform(0, 60, 3)
    colour[inside] = np.clip(paint, 0, 255).astype(np.uint8)
    bump = np.where(inside, np.sqrt(np.clip(1 - squared, 0, 1)), 0).astype(np.float32)
    if frame.xyz is not None:
        z = frame.xyz[..., 2]
        height = 0.02 * float(np.median(z[part]))
        factor = np.where(z > 0, 1 - height * bump / np.maximum(z, 1e-6), 1).astype(np.float32)
        return replace(frame, colour=colour, xyz=frame.xyz * factor[..., None])
    assert frame.depth is not None
    height = 0.02 * float(np.median(frame.depth[part]))
    moved = frame.depth.astype(np.float32) - height * bump * (frame.depth > 0)
    return replace(frame, colour=colour, depth=moved.round().astype(frame.depth.dtype))


def make_golden(
    frames: Sequence[tuple[Frame, str]],
    detector: ReferenceDetector,
    preprocess: Preprocessor,
    classes: Sequence[str],
    scale_m: float,
    seed: int = 115,
) -> list[GoldenFrame]:
    """Every frame as it is and once more with a planted defect.

    Parameters
    ----------
    frames : (good frame, class name).

    Raises
    ------
    EdgeAdError
        No frame could be used.
    """
    out: list[GoldenFrame] = []
    for number, (frame, class_name) in enumerate(frames):
        try:
            prepared = preprocess(frame, class_name)
        except InvalidFrame:
            continue
        sample = prepared.samples[0]
        part = _on_camera(sample.valid, sample.transform.source_rows(), sample.transform.source_cols(), frame.shape)
        for defect in (False, True):
            shown = plant_defect(frame, part, seed + number) if defect else frame
            try:
                again = preprocess(shown, class_name).samples[0]
                result = score_reference(detector, again, scale_m, list(classes).index(class_name))
            except InvalidFrame:
                continue
            name = f"{number:02d}_{'defect' if defect else 'good'}"
            slim = replace(shown, source="golden", name=name)
            out.append(GoldenFrame(name, slim, class_name, defect, np.asarray(result.map, np.float32), result.score))
    if not out:
        raise EdgeAdError("no golden frame could be made", "at least one good frame with a part in view")
    return out


def _on_camera(valid: Bool, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> Bool:
    out = np.zeros(shape, dtype=np.bool_)
    r, c = np.nonzero(valid)
    out[rows[r], cols[c]] = True
    return out


def worst_difference(found: F32, expected: F32) -> float:
    """Largest difference of two maps, relative to the expected map's maximum."""
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
