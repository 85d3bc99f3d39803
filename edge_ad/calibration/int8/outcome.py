"""What a precision does to the task's own metrics, beside float32, and how sure that is. Lean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge_ad.evaluation.runner import ScoredPart

AUPRO_LIMIT = 0.3
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Where the parts and the defects of one class stand. A metric is the mean of its values.

    bad : (b,) share of the good parts that a defective part outscores; good : (g,) share of the defective parts that
    outscore a good one: both have I-AUROC for their mean. regions : (r,) AUPRO@30 % of each defect alone.
    """

    bad: Floats
    good: Floats
    regions: Floats


@dataclass(frozen=True)
class Reference:
    """Float32 answers that the others are held against.

    maps : one a part. limits : class -> score above which a part is rejected (the bundle's float32 threshold, else the
    highest good score). ranks : of each class.
    """

    maps: tuple[np.ndarray, ...]
    limits: Mapping[str, float]
    ranks: Mapping[str, Ranks] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Metrics of one precision over a set of parts.

    i_auroc, aupro_30 : means over the classes, 0..1; None where the parts do not allow them (good parts only).
    correlation : mean correlation of the map with float32's over the valid pixels. map_error : root mean square
    difference of the maps, relative to float32's root mean square. false_rejects : share of the good parts above the
    float32 limit. parts : how many were scored. i_auroc_se, aupro_30_se : standard errors of the two metrics'
    differences from float32's, over draws of the parts (of the defects).
    """

    i_auroc: float | None
    aupro_30: float | None
    correlation: float
    map_error: float
    false_rejects: float
    parts: int = 0
    i_auroc_se: float = 0.0
    aupro_30_se: float = 0.0

    def drop(self, base: Outcome) -> float:
        """Points (hundredths) lost against ``base``: the worse of I-AUROC and AUPRO@30 %.

        Without labels: the worse of 1 - the map's correlation and the rise of the false rejects.
        """
        return self.drop_and_error(base)[0]

    def drop_and_error(self, base: Outcome) -> tuple[float, float]:
        """:meth:`drop` and its standard error in points; 0 without labels."""
        pairs = (
            (base.i_auroc, self.i_auroc, self.i_auroc_se),
            (base.aupro_30, self.aupro_30, self.aupro_30_se),
        )
        lost = [(100 * (a - b), 100 * se) for a, b, se in pairs if a is not None and b is not None]
        if lost:
            return max(lost)
        return max(100 * (1 - self.correlation), 100 * (self.false_rejects - base.false_rejects)), 0.0

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
    return Reference(tuple(p.map for p in parts), limits, ranks(parts))


def ranks(parts: Sequence[ScoredPart]) -> dict[str, Ranks]:
    """Class -> :class:`Ranks`; the arrays are empty where a class has no good, no defective or no drawn part."""
    out: dict[str, Ranks] = {}
    for name in sorted({p.item.class_name for p in parts}):
        own = [p for p in parts if p.item.class_name == name]
        good = np.sort([p.score for p in own if p.item.defect == "good"])
        bad = np.sort([p.score for p in own if p.item.defect != "good"])
        two_sided = bool(len(good) and len(bad))
        above = _below(good, np.array([p.score for p in own if p.item.defect != "good"])) if two_sided else good[:0]
        under = 1 - _below(bad, np.array([p.score for p in own if p.item.defect == "good"])) if two_sided else bad[:0]
        out[name] = Ranks(above, under, _regions(own))
    return out


def _below(ordered: NDArray[Any], values: NDArray[Any]) -> Floats:
    """Share of ``ordered`` (ascending) below each value, equal ones counting half."""
    less, to = (np.searchsorted(ordered, values, side=s) for s in ("left", "right"))
    return np.asarray((less + to) / (2 * len(ordered)), dtype=np.float64)


def _regions(parts: Sequence[ScoredPart]) -> Floats:
    """AUPRO@30 % of every drawn defect (8-connected) among the normal pixels of all these parts.

    AUPRO's area is linear in the pixels of the defects (edge_ad.evaluation.metrics), so it is the mean of these.
    """
    drawn = [(p.map, p.gt) for p in parts if p.gt is not None or p.item.defect == "good"]
    normal = [m[~gt] if gt is not None else m.ravel() for m, gt in drawn]
    if not any(gt is not None and gt.any() for _, gt in drawn):
        return np.zeros(0)
    pooled = np.sort(np.concatenate(normal))
    found: list[float] = []
    for values, gt in drawn:
        if gt is None or not gt.any():
            continue
        labels, count = ndimage.label(gt, structure=np.ones((3, 3), bool))
        area = np.maximum(AUPRO_LIMIT - (1 - _below(pooled, values[gt])), 0) / AUPRO_LIMIT
        found += list(np.bincount(labels[gt], area, count + 1)[1:] / np.bincount(labels[gt], minlength=count + 1)[1:])
    return np.asarray(found)


def outcome(parts: Sequence[ScoredPart], against: Reference) -> Outcome:
    """Metrics of ``parts``, in the order of the reference's maps."""
    correlations, errors = [], []
    for part, expected in zip(parts, against.maps, strict=True):
        found, wanted = part.map[part.valid].astype(np.float64), expected[part.valid].astype(np.float64)
        spread = found.std() * wanted.std()
        covariance = ((found - found.mean()) * (wanted - wanted.mean())).mean()
        correlations.append(covariance / spread if spread > 0 else float(np.allclose(found, wanted)))
        errors.append(np.sqrt(((found - wanted) ** 2).mean()) / max(np.sqrt((wanted**2).mean()), 1e-12))
    good = [p for p in parts if p.item.defect == "good"]
    rejected = sum(p.score > against.limits[p.item.class_name] for p in good)
    images, regions = _metrics(ranks(parts), against.ranks)
    return Outcome(
        images[0],
        regions[0],
        float(np.mean(correlations)),
        float(np.mean(errors)),
        rejected / len(good) if good else 0.0,
        len(parts),
        images[1],
        regions[1],
    )


def _metrics(
    found: Mapping[str, Ranks], base: Mapping[str, Ranks]
) -> tuple[tuple[float | None, float], tuple[float | None, float]]:
    """(mean over the classes, standard error of its difference from ``base``) of I-AUROC and of AUPRO@30 %.

    I-AUROC's error is DeLong's for paired curves (Biometrics 44, 1988); AUPRO's that of a mean over the defects.
    """
    images: list[tuple[float, float]] = []
    regions: list[tuple[float, float]] = []
    for name, own in found.items():
        other = base[name]
        if own.bad.size:
            images.append((float(own.bad.mean()), _variance(own.bad - other.bad) + _variance(own.good - other.good)))
        if own.regions.size:
            regions.append((float(own.regions.mean()), _variance(own.regions - other.regions)))
    return _mean(images), _mean(regions)


def _variance(values: Floats) -> float:
    """Of the mean of these values."""
    return float(values.var(ddof=1) / values.size) if values.size > 1 else 0.0


def _mean(classes: Sequence[tuple[float, float]]) -> tuple[float | None, float]:
    if not classes:
        return None, 0.0
    return float(np.mean([m for m, _ in classes])), float(np.sqrt(sum(v for _, v in classes))) / len(classes)
