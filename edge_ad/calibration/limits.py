"""All decision limits of a bundle from held-out good parts: score, mask, lost depth, distance from the anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, Threshold
from edge_ad.calibration.thresholds import mask_threshold_for, threshold_for
from edge_ad.data.augment import augmented_items
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.runner import ScoredPart, score_items_at_strides

LOST_MARGIN = 1.5
"""The lost-depth limit is at least this many times the largest share that a good part showed."""
ANCHOR_MARGIN = 1.15
"""A part is unlike its class when its mean distance to the anchor is this many times the largest of a good part."""


@dataclass(frozen=True)
class ClassLimits:
    """Limits of one class and what they stand on: n good parts, their median score, the rate's 95 % upper bound."""

    class_name: str
    threshold: Threshold
    median_score: float
    rate_upper_95: float


@dataclass(frozen=True)
class LimitsReport:
    """Limits a class, and warnings about parts that could not be used."""

    classes: tuple[ClassLimits, ...]
    warnings: tuple[str, ...]

    def table(self) -> str:
        """For the terminal."""
        lines = [
            f"{'class':18} {'parts':>5} {'rate':>6} {'true rate below (95 %)':>22} "
            f"{'median':>8} {'threshold':>9} {'lost':>6}"
        ]
        for c in self.classes:
            t = c.threshold
            lines.append(
                f"{c.class_name:18} {t.n_parts:5d} {t.false_reject_rate:6.1%} {c.rate_upper_95:22.1%} "
                f"{c.median_score:8.4f} {t.value:9.4f} {t.lost_share or 0:6.1%}"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Class -> limits."""
        return {
            c.class_name: {**c.threshold.__dict__, "median_score": c.median_score, "rate_upper_95": c.rate_upper_95}
            for c in self.classes
        }


def calibrate(
    bundle: Bundle,
    data: Dataset,
    *,
    split: str = "validation",
    rate: float = 0.05,
    augment: int = 0,
    backend: str = "onnxruntime",
    precision: str = "fp32",
    jobs: int = 0,
    track: Callable[[Iterable[Any], int, str], Iterable[Any]] | None = None,
    scored_with: tuple[Bundle, str] | None = None,
) -> LimitsReport:
    """Set the limits of every class that ``data`` has good parts of, and write them into the bundle.

    ``scored_with``: another bundle and precision to score with (for FP16 the rounding twin), by default the same.

    Raises
    ------
    EdgeAdError
        No good part of any class, or too few for the rate (METHOD: n parts cannot promise less than 1 / (n + 1)).
    """
    bundle.writable("thresholds cannot be set")  # before the work rather than after it
    names = [c for c in bundle.class_names if data.select(c, split, "good")]
    if not names:
        raise EdgeAdError(
            f"{data.root} has no good parts in the split '{split}' of {', '.join(bundle.class_names)}",
            "held-out good parts of the bundle's classes",
            "name another folder, or another --split",
        )
    preset = bundle.preset
    scorer, scored_in = scored_with or (bundle, precision)
    found: list[ClassLimits] = []
    warnings: list[str] = []
    if split == "train":
        warnings.append(
            "these are the parts of the fit, not held-out ones: the rate is promised for parts like them only"
        )
    items: list[Item] = []
    for name in names:
        of_class = augmented_items(data.select(name, split, "good"), augment, rotate=preset.geometry.pose == "free")
        # Refuse before the work rather than after it.
        threshold_for(np.zeros(len(of_class)), rate, class_name=name)
        items += of_class
    # One call for all classes: processes start, and load the model, once. Maps are kept where the limit is set on them.
    is_max = preset.fusion.score == "max"
    scored = score_items_at_strides(
        scorer, items, [scorer.stride], backend=backend, precision=scored_in, maps=not is_max, jobs=jobs, track=track
    )
    parts: dict[str, list[ScoredPart]] = {name: [] for name in names}
    for (part,) in scored:
        parts[part.item.class_name].append(part)
    for name in names:
        usable = [p for p in parts[name] if not p.error]
        warnings += [f"{p.item.name} was left out: {p.error}" for p in parts[name] if p.error]
        found.append(_limits(name, usable, rate, preset.limits.lost_share, is_max, bool(augment)))
    absent = [c for c in bundle.class_names if c not in names]
    if absent:
        warnings.append(f"no good parts of {', '.join(absent)}: their thresholds stay as they were")
    bundle.with_thresholds({c.class_name: c.threshold for c in found}, precision)
    return LimitsReport(tuple(found), tuple(warnings))


def _limits(
    name: str, parts: Sequence[ScoredPart], rate: float, lost_floor: float, score_is_max: bool, augmented: bool
) -> ClassLimits:
    scores = np.array([p.score for p in parts])
    image = threshold_for(scores, rate, class_name=name)
    mask = image
    if not score_is_max:
        mask = mask_threshold_for([p.map for p in parts], [p.valid for p in parts], rate, class_name=name)
    anchor = np.array([p.anchor_distance for p in parts])
    threshold = Threshold(
        value=image.value,
        mask_value=mask.value,
        n_parts=image.n_parts,
        false_reject_rate=rate,
        set_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        lost_share=max(lost_floor, LOST_MARGIN * max(p.lost_share for p in parts)),
        anchor_distance=None if np.isnan(anchor).any() else float(ANCHOR_MARGIN * anchor.max()),
    )
    threshold = replace(threshold, augmented=augmented)
    return ClassLimits(name, threshold, float(np.median(scores)), image.rate_upper_95)
