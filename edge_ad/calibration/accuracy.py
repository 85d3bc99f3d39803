"""How accurate a point is on the data at hand: ranks where there are defects, agreement with the exact model if not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.report import evaluate_scores
from edge_ad.evaluation.runner import ScoredPart, score_items_at_strides, to_record

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


@dataclass(frozen=True)
class Accuracy:
    """Means over the classes; None where the data has no defects (or none drawn).

    map_correlation : Pearson, over the scored pixels of all parts, with the maps of the exact float32 base model.
    false_reject : share of the test's good parts above the largest score of the held-out good ones, or None without
    both. parts : that were scored.
    """

    i_auroc: float | None
    aupro_30: float | None
    map_correlation: float
    false_reject: float | None
    parts: int

    @property
    def ranked(self) -> bool:
        """Whether there is a metric against defects."""
        return self.i_auroc is not None or self.aupro_30 is not None

    @property
    def value(self) -> float:
        """What points are ranked by: the mean of the two metrics that there are, else the correlation."""
        known = [v for v in (self.i_auroc, self.aupro_30) if v is not None]
        return float(np.mean(known)) if known else self.map_correlation


@dataclass(frozen=True)
class Exact:
    """The exact model's maps, by part."""

    maps: dict[str, np.ndarray]


def parts_to_score(data: Dataset, classes: Sequence[str], split: str, limit: int) -> list[Item]:
    """Test parts of the bundle's classes, at most ``limit`` a class and defect; else the good parts of ``split``."""
    chosen: list[Item] = []
    counts: dict[tuple[str, str], int] = {}
    for item in data.select(None, "test", None) or data.select(None, split, "good"):
        key = (item.class_name, item.defect)
        if item.class_name in classes and (not limit or counts.get(key, 0) < limit):
            counts[key] = counts.get(key, 0) + 1
            chosen.append(item)
    if not chosen:
        raise EdgeAdError(f"{data.root} has no part of {', '.join(classes)}", "a test split, or good parts")
    return chosen


def measure_accuracy(
    bundle: Bundle,
    data: Dataset,
    points: Sequence[OperatingPoint],
    exact: Exact | None,
    *,
    split: str,
    limit: int,
    jobs: int,
    track: Track | None = None,
) -> tuple[list[Accuracy], Exact]:
    """Score the test parts at points that differ in their stride alone: a part is encoded once for all of them.

    Parameters
    ----------
    exact : what the first call gave, whose first point is the exact base model; None at that call. track : wraps the
        parts to show progress.

    Raises
    ------
    EdgeAdError
        No part could be scored.
    """
    point, strides = points[0], [p.stride for p in points]
    if any(replace(p, stride=1) != replace(point, stride=1) for p in points):
        raise ValueError("points that differ in more than their stride")
    view = bundle.as_variant(point.variant)
    items = parts_to_score(data, bundle.class_names, split, limit)

    def score(of: Sequence[Item], maps: bool) -> list[list[ScoredPart]]:
        """The parts that could be scored, a list a stride."""
        found = score_items_at_strides(
            view, of, strides, backend=point.backend, precision=point.precision, maps=maps, jobs=jobs, track=track
        )
        usable = [parts for parts in found if not parts[0].error]
        return [[parts[i] for parts in usable] for i in range(len(strides))]

    at_strides = score(items, maps=True)
    if not at_strides[0]:
        raise EdgeAdError(f"none of the {len(items)} parts could be scored at {point}", "at least one")
    if exact is None:
        exact = Exact({p.item.name: p.map for p in at_strides[0]})
    held: list[list[ScoredPart]] = [[] for _ in points]
    if any(_is_good_test(p) for p in at_strides[0]):
        good = [i for i in data.select(None, split, "good") if i.class_name in bundle.class_names]
        held = score(good, maps=False)
    return [_accuracy(parts, others, exact) for parts, others in zip(at_strides, held)], exact


def _accuracy(parts: Sequence[ScoredPart], held: Sequence[ScoredPart], exact: Exact) -> Accuracy:
    report = evaluate_scores([to_record(p) for p in parts])
    highest: dict[str, float] = {}
    for p in held:
        highest[p.class_name] = max(highest.get(p.class_name, -np.inf), p.score)
    rejects = [p.score > highest[p.class_name] for p in parts if _is_good_test(p) and p.class_name in highest]
    return Accuracy(
        report.mean["i_auroc"],
        report.mean["aupro_30"],
        _correlation(parts, exact),
        float(np.mean(rejects)) if rejects else None,
        len(parts),
    )


def _is_good_test(part: ScoredPart) -> bool:
    return part.item.defect == "good" and part.item.split == "test"


def _correlation(parts: Sequence[ScoredPart], exact: Exact) -> float:
    here, there = [], []
    for p in parts:
        other = exact.maps.get(p.item.name)
        if other is not None and p.valid.any():
            here.append(p.map[p.valid])
            there.append(other[p.valid])
    if not here:
        return float("nan")
    a, b = np.concatenate(here).astype(np.float64), np.concatenate(there).astype(np.float64)
    if np.array_equal(a, b):
        return 1.0
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
