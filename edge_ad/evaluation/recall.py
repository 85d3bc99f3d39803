"""Recall by the size and by the kind of the defect, at a stated threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.metrics import threshold_at_false_rejects
from edge_ad.evaluation.report import Record
from edge_ad.evaluation.tables import Table, percent
from edge_ad.frame import Bool

#: Area of the defect over area of the part: upper ends of the bins, and their names.
SIZE_BINS: tuple[tuple[float, str], ...] = (
    (0.003, "below 0.3 %"),
    (0.01, "0.3-1 %"),
    (0.03, "1-3 %"),
    (0.10, "3-10 %"),
    (math.inf, "above 10 %"),
)
_Z95 = 1.959963984540054


@dataclass(frozen=True)
class RecallRow:
    """``found`` of ``total`` defective parts of one group; ``low`` and ``high`` are Wilson's 95 % interval."""

    by: str
    group: str
    found: int
    total: int

    @property
    def recall(self) -> float:
        """found / total."""
        return self.found / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval at 95 %."""
        n, p, z2 = self.total, self.recall, _Z95 * _Z95
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class RecallReport:
    """Recall of the defective parts in groups, with the thresholds and the false rejects behind them.

    rows : one a group with at least one part. thresholds : class -> score threshold.
    false_rejects, good : good test parts rejected, and all of them. how : where the thresholds come from.
    """

    rows: tuple[RecallRow, ...]
    thresholds: dict[str, float]
    false_rejects: int
    good: int
    how: str

    def table(self) -> Table:
        """One line a group: found, total, recall and its interval in per cent."""
        cells = []
        for row in self.rows:
            low, high = row.interval
            group = row.group if row.by == "all" else f"{row.by}: {row.group}"
            cells.append(
                (group, str(row.found), str(row.total), percent(row.recall), f"{percent(low)}-{percent(high)}")
            )
        notes = [f"threshold: {self.how}"]
        if self.good:
            share = percent(self.false_rejects / self.good)
            notes.append(f"false rejects: {self.false_rejects} of {self.good} good test parts ({share} %)")
        else:
            notes.append("false rejects: unknown, no good test part")
        columns = ("defects", "found", "of", "recall %", "95 % interval")
        return Table("Recall of defective parts", columns, tuple(cells), notes=tuple(notes))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; recall in [0, 1]."""
        return {
            "how": self.how,
            "thresholds": dict(self.thresholds),
            "false_rejects": self.false_rejects,
            "good_parts": self.good,
            "rows": [
                {
                    "by": r.by,
                    "group": r.group,
                    "found": r.found,
                    "total": r.total,
                    "recall": r.recall,
                    "interval_95": list(r.interval),
                }
                for r in self.rows
            ],
        }


def area_share(gt: Bool, part: Bool) -> float:
    """Pixels of the defect over pixels of the part.

    gt, part : (H, W) bool on one grid. The part is its outline or its valid pixels together with the defect (a
    hole has no depth, yet it belongs to the part). 0 without a defect.
    """
    if gt.shape != part.shape:
        raise EdgeAdError(f"ground truth of shape {gt.shape}, part of {part.shape}", "one grid")
    defect = int(np.count_nonzero(gt))
    return defect / int(np.count_nonzero(gt | part)) if defect else 0.0


def size_bin(share: float) -> str:
    """Name of the size bin; the lower end belongs to the bin, and exactly 10 % to the last named one."""
    if share == SIZE_BINS[-2][0]:
        return SIZE_BINS[-2][1]
    return next(name for upper, name in SIZE_BINS if share < upper)


def recall_report(
    records: Sequence[Record],
    threshold: float | Mapping[str, float] | None = None,
    *,
    false_reject_rate: float = 0.05,
) -> RecallReport:
    """Recall overall, by size of defect, by modality, by kind of defect and by class.

    Parameters
    ----------
    records : test parts; the decision is ``score > threshold``. Maps are not looked at.
    threshold : one for all classes, or class -> threshold. None takes, class by class, the lowest one that
        rejects at most ``false_reject_rate`` of the class's good test parts.

    Raises
    ------
    EdgeAdError : no defective part, or a class without threshold or without good parts to set one from.
    """
    bad = [r for r in records if r.is_defective]
    if not bad:
        raise EdgeAdError("no defective test part", "at least one", "recall needs defects")
    classes = sorted({r.class_name for r in records})
    limits: dict[str, float] = {}
    if threshold is None:
        how = f"set on the good test parts of each class, at most {percent(false_reject_rate)} % false rejects"
        for c in classes:
            good_scores = [r.score for r in records if r.class_name == c and not r.is_defective]
            if not good_scores:
                raise EdgeAdError(f"class '{c}' has no good test part", "some to set a threshold", "give a threshold")
            limits[c] = threshold_at_false_rejects(good_scores, false_reject_rate)
    else:
        how = "given"
        for c in classes:
            value = threshold.get(c) if isinstance(threshold, Mapping) else threshold
            if value is None or math.isnan(value):
                raise EdgeAdError(f"class '{c}' has no threshold", "one a class")
            limits[c] = float(value)
    good = [r for r in records if not r.is_defective]
    rows = [_row("all", "all", bad, limits)]
    bins = {name: [r for r in bad if size_bin(r.area_share) == name] for _, name in SIZE_BINS}
    # A share of 0 on a defective part means that nobody drew the defect.
    bins[SIZE_BINS[0][1]] = [r for r in bins[SIZE_BINS[0][1]] if r.area_share > 0]
    rows += [_row("size", name, parts, limits) for name, parts in bins.items() if parts]
    unknown = [r for r in bad if r.area_share <= 0]
    if unknown and len(unknown) < len(bad):
        rows.append(_row("size", "unknown", unknown, limits))
    for by, values in (
        ("shows in", [r.modality for r in bad]),
        ("kind", [r.defect for r in bad]),
        ("class", [r.class_name for r in bad]),
    ):
        groups = sorted({v for v in values if v})
        rows += [_row(by, g, [r for r, v in zip(bad, values, strict=True) if v == g], limits) for g in groups]
    rejected = sum(bool(r.score > limits[r.class_name]) for r in good)
    return RecallReport(tuple(rows), limits, rejected, len(good), how)


def _row(by: str, group: str, parts: Sequence[Record], limits: Mapping[str, float]) -> RecallRow:
    return RecallRow(by, group, sum(bool(r.score > limits[r.class_name]) for r in parts), len(parts))
