"""The last stage: from the maps of a frame's parts to its Result, on the camera's own pixel grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_ad.frame import F32, Bool, Frame, Region, Result, Sample
from edge_ad.presets import Preset
from edge_ad.runtime.limits import NAN, Limits
from edge_ad.runtime.maps import drop_small, find_regions, map_to_camera, mask_to_camera
from edge_ad.runtime.parts import CUT_OFF
from edge_ad.runtime.stages import Prepared, Scored, ScoredFrame

AUTO = "auto"


def invalid_result(frame: Frame, class_name: str, reasons: tuple[str, ...]) -> Result:
    """``decision: invalid`` for a frame of which nothing could be scored."""
    return Result(
        "invalid",
        "ok",
        reasons,
        "" if class_name == AUTO else class_name,
        NAN,
        NAN,
        flags=frame.flags,
        name=frame.name,
        sequence=frame.sequence,
        source=frame.source,
    )


@dataclass(frozen=True)
class PartFinding:
    """One part on the sample grid: its sample, its score, and what the limits make of its map.

    mask : (S, S) bool. anomalous : the score is above its limit. lost_share : of the part, 0 to 1.
    """

    sample: Sample
    scored: Scored
    mask: Bool
    anomalous: bool
    lost_share: float


@dataclass(frozen=True)
class CameraView:
    """A frame's parts together on the camera's grid, (H, W): map float32, mask and lost depth bool; the regions."""

    map: F32
    mask: Bool
    lost: Bool
    regions: tuple[Region, ...]


LOST_MIN_PX = 25
"""Smaller areas of lost depth on the camera's grid are the noise of every depth camera."""


def build_result(scored: ScoredFrame, limits_of: Mapping[str, Limits], preset: Preset) -> Result:
    """Maps, mask, regions and decision of one frame, without its times.

    Parameters
    ----------
    scored : at least one part. limits_of : class -> its limits.
    """
    prepared = scored.prepared
    assert prepared.cut is not None and scored.parts
    shape = prepared.frame.shape
    camera_map, camera_mask, camera_lost = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    findings = [_find(sample, part, limits_of[part.class_name], preset) for sample, part in scored.parts]
    for found in findings:
        t = found.sample.transform
        camera_map = np.maximum(camera_map, map_to_camera(found.scored.map, t))
        camera_mask |= mask_to_camera(found.mask, t)
        camera_lost |= mask_to_camera(found.sample.lost, t)
    camera_lost = drop_small(camera_lost, LOST_MIN_PX)
    regions = find_regions(camera_mask, camera_map, prepared.cut.xyz)
    regions += find_regions(camera_lost, camera_map, prepared.cut.xyz, kind="lost-depth")
    return compose(prepared, findings, CameraView(camera_map, camera_mask, camera_lost, regions), limits_of, preset)


def _find(sample: Sample, part: Scored, limits: Limits, preset: Preset) -> PartFinding:
    above = (part.map > limits.mask) & _near(sample.valid)
    mask = drop_small(above, preset.fusion.min_region_px)
    anomalous = part.score > limits.score
    if anomalous and not mask.any():
        mask = above  # an anomalous part always shows where, even if all its regions are small
    lost_share = float(sample.lost.sum() / max(1, (sample.lost | sample.valid).sum()))
    return PartFinding(sample, part, mask, anomalous, lost_share)


def compose(
    prepared: Prepared,
    findings: Sequence[PartFinding],
    view: CameraView,
    limits_of: Mapping[str, Limits],
    preset: Preset,
) -> Result:
    """The decision about a frame and its reasons, from what was found on its parts (at least one)."""
    frame, cut = prepared.frame, prepared.cut
    assert cut is not None and findings
    reasons = list(prepared.reasons)
    auto = prepared.class_name == AUTO
    for found in findings:
        part = found.scored
        limits = limits_of[part.class_name]
        limit = preset.limits.lost_share if np.isnan(limits.lost_share) else limits.lost_share
        if found.lost_share > limit:
            reasons.append(f"lost depth on {found.lost_share:.1%} of the part (limit {limit:.1%})")
        if np.isnan(limits.score):
            reasons.append(f"no threshold for class {part.class_name}")
        if CUT_OFF in found.sample.notes:
            reasons.append(CUT_OFF)
        if part.anchor_distance > limits.anchor_distance:  # False for NaN: a limit that was never set
            nearest = f"every known class (nearest: {part.class_name})"
            reasons.append(f"unlike {nearest if auto else f'the good parts of class {part.class_name}'}")
    anomalous = any(found.anomalous for found in findings)
    ratios = [f.scored.score / max(limits_of[f.scored.class_name].score, 1e-12) for f in findings]
    worst = findings[int(np.argmax(ratios))]
    return Result(
        decision="anomalous" if anomalous else "invalid" if reasons else "normal",
        health="ok",
        reasons=tuple(reasons),
        class_name=worst.scored.class_name,
        score=worst.scored.score,
        threshold=limits_of[worst.scored.class_name].score,
        lost_share=max(found.lost_share for found in findings),
        map=view.map,
        mask=view.mask,
        sample_map=worst.scored.map,
        sample_mask=worst.mask,
        valid=worst.sample.valid,
        lost=view.lost,
        regions=view.regions,
        flags=frame.flags + cut.notes,
        name=frame.name,
        sequence=frame.sequence,
        source=frame.source,
    )


def _near(valid: Bool) -> Bool:
    """Valid pixels and a rim of 3: smoothing carries the map a little beyond the part, where nothing was scored."""
    return cv2.dilate(valid.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
