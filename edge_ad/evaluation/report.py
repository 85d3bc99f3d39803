"""From the scores of a test set to the metrics of METHOD section 8, a class and the mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.metrics import auroc, pool_pixels
from edge_ad.evaluation.tables import Table, mean_of, metrics_table, thresholds_note
from edge_ad.frame import F32, Bool

LIMITS = {"aupro_30": 0.30, "aupro_1": 0.01}


@dataclass(frozen=True)
class Record:
    """One scored test part. S is the side of the sample grid.

    Attributes
    ----------
    class_name : class of the part. defect : name of the kind of defect, ``"good"`` for good parts.
    is_defective : label of the whole part. score : its anomaly score.
    map : (S, S) float32 anomaly map, 0 on invalid pixels.
    gt : (S, S) bool, the defect; None when nobody drew it (a good part without one counts as all False).
    valid : (S, S) bool, the scored pixels.
    area_share : pixels of the defect over pixels of the part (see ``recall.area_share``); 0 on good parts.
    modality : where the defect shows, e.g. ``"colour"``, ``"depth"``, ``"both"``; empty when unknown.
    other_maps : further maps (S, S) float32 by name, e.g. the terms of eq. 16; each is scored by its maximum.
    name : name of the part, for people.
    """

    class_name: str
    defect: str
    is_defective: bool
    score: float
    map: F32
    gt: Bool | None
    valid: Bool
    area_share: float = 0.0
    modality: str = ""
    other_maps: Mapping[str, F32] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        arrays = {"valid": self.valid, **({} if self.gt is None else {"gt": self.gt}), **self.other_maps}
        for what, array in arrays.items():
            if array.shape != self.map.shape:
                raise EdgeAdError(
                    f"part '{self.name}': {what} of shape {array.shape}, map of {self.map.shape}", "one sample grid"
                )
        if self.gt is not None and not self.is_defective and bool(self.gt.any()):
            raise EdgeAdError(f"part '{self.name}' is labelled good and has defect pixels", "an empty ground truth")


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, in [0, 1]; None where the test set does not allow one.

    good, defective : parts. components : 8-connected regions of the ground truth.
    """

    class_name: str
    good: int
    defective: int
    components: int
    i_auroc: float | None
    p_auroc: float | None
    aupro_30: float | None
    aupro_1: float | None

    def metrics(self) -> dict[str, float | None]:
        """The four metrics by their keys in JSON."""
        return {
            "i_auroc": self.i_auroc,
            "p_auroc": self.p_auroc,
            "aupro_30": self.aupro_30,
            "aupro_1": self.aupro_1,
        }


@dataclass(frozen=True)
class EvaluationReport:
    """Metrics a class and their mean over the classes.

    classes : one entry a class, sorted by name. others : the same for each of the records' further maps.
    thresholds : number of AUPRO thresholds, None for exact integration. notes : what a reader has to know.
    """

    classes: tuple[ClassMetrics, ...]
    thresholds: int | None
    others: dict[str, tuple[ClassMetrics, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> dict[str, float | None]:
        """Mean over the classes that have the metric."""
        return mean_of({c.class_name: c.metrics() for c in self.classes})

    def tables(self) -> tuple[Table, ...]:
        """The main table, then one for each further map."""
        tables = [self._table(self.classes, "Anomaly map", self.notes)]
        tables += [self._table(classes, f"Map '{name}'", ()) for name, classes in self.others.items()]
        return tuple(tables)

    def to_text(self) -> str:
        """All tables for the terminal."""
        return "\n\n".join(t.to_text() for t in self.tables())

    def to_markdown(self) -> str:
        """All tables for documents."""
        return "\n\n".join(t.to_markdown() for t in self.tables())

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; metrics unrounded in [0, 1], null where missing."""
        return {
            "aupro_thresholds": "exact" if self.thresholds is None else self.thresholds,
            "aupro_convention": thresholds_note(self.thresholds),
            "classes": _classes_json(self.classes),
            "mean": self.mean,
            "other_maps": {
                name: {
                    "classes": _classes_json(classes),
                    "mean": mean_of({c.class_name: c.metrics() for c in classes}),
                }
                for name, classes in self.others.items()
            },
            "notes": list(self.notes),
        }

    def _table(self, classes: Sequence[ClassMetrics], title: str, notes: Sequence[str]) -> Table:
        return metrics_table(
            {c.class_name: c.metrics() for c in classes},
            self.thresholds,
            title=title,
            counts={c.class_name: (c.good, c.defective) for c in classes},
            notes=notes,
        )


def evaluate_scores(
    records: Iterable[Record], thresholds: int | None = None, *, notes: Sequence[str] = ()
) -> EvaluationReport:
    """I-AUROC, P-AUROC, AUPRO@30 % and AUPRO@1 % a class, and their mean (METHOD section 8).

    Pixel metrics run over all pixels of the sample grid, as in published tables: an invalid pixel has score 0, so
    a defect without depth is missed rather than forgotten. A class without good or defective parts has no I-AUROC;
    one without drawn defects no pixel metrics.

    Parameters
    ----------
    records : the test parts; maps are pooled one class at a time.
    thresholds : None for exact AUPRO, 99 for the convention of published tables.
    notes : lines to print with the report, e.g. how many parts could not be scored.

    Raises
    ------
    EdgeAdError : no record, a NaN score (with the part's name), or maps of other names among the parts of a class.
    """
    by_class: dict[str, list[Record]] = {}
    for record in records:
        if np.isnan(record.score) or np.isnan(record.map).any():
            raise EdgeAdError(
                f"part '{record.name}' of class '{record.class_name}': NaN in its score or map", "numbers"
            )
        by_class.setdefault(record.class_name, []).append(record)
    if not by_class:
        raise EdgeAdError("no scored part", "at least one", "is the test split empty?")
    classes: list[ClassMetrics] = []
    others: dict[str, list[ClassMetrics]] = {}
    undrawn = 0
    for class_name, parts in sorted(by_class.items()):
        undrawn += sum(r.is_defective and r.gt is None for r in parts)
        classes.append(_class_metrics(class_name, parts, None, thresholds))
        names = set(parts[0].other_maps)
        if any(set(r.other_maps) != names for r in parts):
            raise EdgeAdError(f"parts of class '{class_name}' with different further maps", "the same for all")
        for name in parts[0].other_maps:
            others.setdefault(name, []).append(_class_metrics(class_name, parts, name, thresholds))
    all_notes = list(notes)
    if undrawn:
        all_notes.append(f"{undrawn} defective parts have no ground truth: they count in I-AUROC only")
    return EvaluationReport(tuple(classes), thresholds, {k: tuple(v) for k, v in others.items()}, tuple(all_notes))


def _class_metrics(class_name: str, parts: Sequence[Record], which: str | None, thresholds: int | None) -> ClassMetrics:
    maps = [r.map if which is None else r.other_maps[which] for r in parts]
    scores = [r.score for r in parts] if which is None else [float(m.max()) for m in maps]
    defective = sum(r.is_defective for r in parts)
    image = None
    if 0 < defective < len(parts):
        image = auroc([r.is_defective for r in parts], scores)
    drawn = [i for i, r in enumerate(parts) if r.gt is not None or not r.is_defective]
    masks: list[Bool] = []
    for i in drawn:
        gt = parts[i].gt
        masks.append(np.zeros(maps[i].shape, dtype=bool) if gt is None else gt)
    pixel: dict[str, float | None] = {"p_auroc": None, "aupro_30": None, "aupro_1": None}
    components = 0
    if any(m.any() for m in masks) and not all(m.all() for m in masks):
        pooled = pool_pixels(masks, [maps[i] for i in drawn])
        components = pooled.components
        pixel["p_auroc"] = pooled.auroc()
        for key, limit in LIMITS.items():
            pixel[key] = pooled.aupro(limit, thresholds)
    return ClassMetrics(class_name, len(parts) - defective, defective, components, image, **pixel)


def _classes_json(classes: Sequence[ClassMetrics]) -> dict[str, Any]:
    return {
        c.class_name: {"good": c.good, "defective": c.defective, "components": c.components, **c.metrics()}
        for c in classes
    }
