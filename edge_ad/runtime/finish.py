"""The last stage: from the maps of a frame's parts to its Result, on the camera's own pixel grid."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from edge_ad.frame import Bool, Frame, Region, Result
from edge_ad.presets import Preset
from edge_ad.runtime.limits import NAN, Limits
from edge_ad.runtime.maps import drop_small, find_regions, map_to_camera, mask_to_camera
from edge_ad.runtime.preprocess import CUT_OFF
from edge_ad.runtime.stages import ScoredFrame

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


def build_result(scored: ScoredFrame, limits_of: Mapping[str, Limits], preset: Preset) -> Result:
    """Maps, mask, regions and decision of one frame, without its times.

    Parameters
    ----------
    scored : at least one part. limits_of : class -> its limits.
    """
    prepared = scored.prepared
    frame, cut = prepared.frame, prepared.cut
    assert cut is not None and scored.parts
    reasons = list(prepared.reasons)
    auto = prepared.class_name == AUTO
    shape = frame.shape
    camera_map, camera_mask, camera_lost = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    parts = [part for _, part in scored.parts]
    masks: list[Bool] = []
    shares: list[float] = []
    anomalous = False
    for sample, part in scored.parts:
        limits = limits_of[part.class_name]
        above = (part.map > limits.mask) & _near(sample.valid)
        mask = drop_small(above, preset.fusion.min_region_px)
        if part.score > limits.score:
            anomalous = True
            # An anomalous part always shows where, even if all its regions are small.
            mask = mask if mask.any() else above
        masks.append(mask)
        camera_map = np.maximum(camera_map, map_to_camera(part.map, sample.transform))
        camera_mask |= mask_to_camera(mask, sample.transform)
        camera_lost |= mask_to_camera(sample.lost, sample.transform)
        shares.append(float(sample.lost.sum() / max(1, (sample.lost | sample.valid).sum())))
        limit = preset.limits.lost_share if np.isnan(limits.lost_share) else limits.lost_share
        if shares[-1] > limit:
            reasons.append(f"lost depth on {shares[-1]:.1%} of the part (limit {limit:.1%})")
        if np.isnan(limits.score):
            reasons.append(f"no threshold for class {part.class_name}")
        if CUT_OFF in sample.notes:
            reasons.append(CUT_OFF)
        if part.anchor_distance > limits.anchor_distance:  # False for NaN: a limit that was never set
            nearest = f"every known class (nearest: {part.class_name})"
            reasons.append(f"unlike {nearest if auto else f'the good parts of class {part.class_name}'}")
    worst = int(np.argmax([p.score / max(limits_of[p.class_name].score, 1e-12) for p in parts]))
    limits = limits_of[parts[worst].class_name]
    camera_lost = drop_small(camera_lost, 25)
    regions: tuple[Region, ...] = find_regions(camera_mask, camera_map, cut.xyz)
    regions += find_regions(camera_lost, camera_map, cut.xyz, kind="lost-depth")
    return Result(
        decision="anomalous" if anomalous else "invalid" if reasons else "normal",
        health="ok",
        reasons=tuple(reasons),
        class_name=parts[worst].class_name,
        score=parts[worst].score,
        threshold=limits.score,
        lost_share=max(shares),
        map=camera_map,
        mask=camera_mask,
        sample_map=parts[worst].map,
        sample_mask=masks[worst],
        valid=scored.parts[worst][0].valid,
        lost=camera_lost,
        regions=regions,
        flags=frame.flags + cut.notes,
        name=frame.name,
        sequence=frame.sequence,
        source=frame.source,
    )


def _near(valid: Bool) -> Bool:
    """Valid pixels and a rim of 3: smoothing carries the map a little beyond the part, where nothing was scored."""
    return cv2.dilate(valid.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
