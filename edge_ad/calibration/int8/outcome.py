"""What a precision does to the task's own metrics, beside float32. Lean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_ad.evaluation.report import evaluate_scores
from edge_ad.evaluation.runner import ScoredPart, to_record

METRICS = ("i_auroc", "aupro_30")


@dataclass(frozen=True)
class Reference:
    """Float32 answers that the others are held against: maps and limits a class, and the names of labelled metrics.

    limits : class -> score above which a part is rejected (the bundle's float32 threshold, else the highest good
    score).
    """

    maps: tuple[np.ndarray, ...]
    limits: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """Metrics of one precision over a set of parts.

    i_auroc, aupro_30 : means over the classes, 0..1; None where the parts do not allow them (good parts only).
    correlation : mean correlation of the map with float32's over the valid pixels. map_error : root mean square
    difference of the maps, relative to float32's root mean square. false_rejects : share of the good parts above the
    float32 limit. parts : how many were scored.
    """

    i_auroc: float | None
    aupro_30: float | None
    correlation: float
    map_error: float
    false_rejects: float
    parts: int = 0

    def drop(self, base: Outcome) -> float:
        """Points (hundredths) lost against ``base``: the worse of I-AUROC and AUPRO@30 %.

        Without labels: the worse of 1 - the map's correlation and the rise of the false rejects.
        """
        pairs = [(base.i_auroc, self.i_auroc), (base.aupro_30, self.aupro_30)]
        lost = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
        if lost:
            return max(lost)
        return max(100 * (1 - self.correlation), 100 * (self.false_rejects - base.false_rejects))

    @property
    def labelled(self) -> bool:
        """Whether the drop is in I-AUROC and AUPRO@30 %."""
        return self.i_auroc is not None or self.aupro_30 is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(self.__dict__)


def reference(parts: Sequence[ScoredPart], thresholds: Mapping[str, float]) -> Reference:
    """From the float32 answers; ``thresholds``: class -> float32 threshold, for the classes that have one."""
    limits = {}
    for name in {p.item.class_name for p in parts}:
        good = [p.score for p in parts if p.item.class_name == name and p.item.defect == "good"]
        limits[name] = thresholds.get(name, max(good, default=float("inf")))
    return Reference(tuple(p.map for p in parts), limits)


def outcome(parts: Sequence[ScoredPart], against: Reference) -> Outcome:
    """Metrics of ``parts``, in the order of the reference's maps."""
    mean = evaluate_scores([to_record(p) for p in parts]).mean
    correlations, errors = [], []
    for part, expected in zip(parts, against.maps, strict=True):
        found, wanted = part.map[part.valid].astype(np.float64), expected[part.valid].astype(np.float64)
        spread = found.std() * wanted.std()
        covariance = ((found - found.mean()) * (wanted - wanted.mean())).mean()
        correlations.append(covariance / spread if spread > 0 else float(np.allclose(found, wanted)))
        errors.append(np.sqrt(((found - wanted) ** 2).mean()) / max(np.sqrt((wanted**2).mean()), 1e-12))
    good = [p for p in parts if p.item.defect == "good"]
    rejected = sum(p.score > against.limits[p.item.class_name] for p in good)
    return Outcome(
        mean["i_auroc"],
        mean["aupro_30"],
        float(np.mean(correlations)),
        float(np.mean(errors)),
        rejected / len(good) if good else 0.0,
        len(parts),
    )
