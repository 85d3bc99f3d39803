"""Choose variant, score stride, precision and backend on this box by measurement. No torch.

Every candidate is timed in a process of its own, so that its memory is its own; then its accuracy is measured on the
data's test split. The choice is the most accurate candidate whose median latency meets the target (ties: the faster).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.calibration.accuracy import Accuracy, Track, measure_accuracy
from edge_ad.calibration.limits import LimitsReport, calibrate
from edge_ad.calibration.thresholds import threshold_for
from edge_ad.calibration.timing import Timed, Timing, time_afresh
from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError
from edge_ad.parallel import cores
from edge_ad.system import processor_name

FRAMES_KEPT = 6
"""Different frames that the timing cycles through: few, so that the memory is the detector's."""
TIE = 5e-4
"""Means of I-AUROC and AUPRO that differ by less count as equal."""


@dataclass(frozen=True)
class Row:
    """One candidate. time : None where it could not be measured; then ``reason`` says why it is out."""

    point: OperatingPoint
    time: Timed | None = None
    accuracy: Accuracy | None = None
    reason: str = ""
    pareto: bool = False

    @property
    def measured(self) -> bool:
        """Whether it has all its figures."""
        return not self.reason and self.time is not None and self.accuracy is not None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without what was not measured."""
        p = self.point
        found: dict[str, Any] = {
            "variant": p.variant,
            "stride": p.stride,
            "precision": p.precision,
            "backend": p.backend,
            **({} if self.time is None else asdict(self.time)),
            "pareto": self.pareto,
            "reason": self.reason,
            **({} if self.accuracy is None else asdict(self.accuracy)),
        }
        return {k: v for k, v in found.items() if v is not None and v == v}


@dataclass(frozen=True)
class Tuning:
    """What ``tune`` found and chose; ``limits`` are the thresholds that it set there."""

    rows: tuple[Row, ...]
    chosen: Row
    limits: LimitsReport
    notes: tuple[str, ...] = ()
    measured: dict[str, Any] = field(default_factory=dict)


def candidates(
    bundle: Bundle, variants: Sequence[str], strides: Sequence[int], precisions: Sequence[str], backends: Sequence[str]
) -> list[OperatingPoint]:
    """Every combination that the backends take; the exact float32 one first, which the others are held against."""
    found = [OperatingPoint()]
    for variant in variants:
        view = bundle.as_variant(variant)
        for backend in backends:
            for precision in precisions:
                if precision == "bf16" and backend != "openvino":
                    continue
                if precision == "fp16" and not backend.startswith("tensorrt"):
                    continue
                if precision not in (*view.precisions, "bf16"):
                    continue
                found += [OperatingPoint(variant, s, precision, backend) for s in strides]
    return list({str(p): p for p in found}.values())


def available_backends() -> tuple[str, ...]:
    """CPU backends that are installed here."""
    from importlib.util import find_spec

    return ("onnxruntime", "openvino") if find_spec("openvino") else ("onnxruntime",)


def available_precisions(bundle: Bundle, backends: Sequence[str]) -> tuple[str, ...]:
    """Precisions that the bundle holds, and bf16 where OpenVINO and this processor have it."""
    found = tuple(p for p in bundle.precisions if p != "fp16" or any(b.startswith("tensorrt") for b in backends))
    if "openvino" in backends:
        from edge_ad.runtime.backends.openvino import has_bf16

        found += ("bf16",) if has_bf16() else ()
    return found


def mark_pareto(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other one beats in latency, memory and accuracy at once."""

    def figures(row: Row) -> tuple[float, float, float]:
        assert row.accuracy is not None and row.time is not None
        return row.time.p50_ms, row.time.peak_mb, -row.accuracy.value

    alive = [r for r in rows if r.measured]

    def beaten(row: Row) -> bool:
        mine = figures(row)
        return any(
            all(a <= b for a, b in zip(figures(other), mine)) and figures(other) != mine
            for other in alive
            if other is not row
        )

    return [replace(r, pareto=r in alive and not beaten(r)) for r in rows]


def choose(rows: Sequence[Row], target_ms: float | None = None, target_fps: float | None = None) -> Row:
    """The most accurate row that meets the targets; of equal ones the fastest.

    A lower precision counts only where it is faster than float32 at the same variant and stride: what it finds better
    is chance. target_ms : for the median of one frame in flight. target_fps : frames a second in throughput mode.

    Raises
    ------
    EdgeAdError
        None meets them: which is the fastest, and how fast that is.
    """
    alive = [(r, r.time, r.accuracy) for r in rows if r.time is not None and r.accuracy is not None and not r.reason]
    if not alive:
        raise EdgeAdError("no candidate could be measured", "at least one", rows[0].reason if rows else "")
    plain: dict[tuple[str, int], float] = {}
    for r, t, _ in alive:
        key = (r.point.variant, r.point.stride)
        if r.point.precision == "fp32":
            plain[key] = min(t.p50_ms, plain.get(key, t.p50_ms))
    alive = [
        (r, t, a)
        for r, t, a in alive
        if r.point.precision == "fp32" or t.p50_ms < plain.get((r.point.variant, r.point.stride), float("inf"))
    ]
    ms, fps = target_ms or float("inf"), target_fps or 0.0
    meets = [(r, t, a) for r, t, a in alive if t.p50_ms <= ms and t.per_second >= fps]
    if not meets:
        fastest, time, _ = min(alive, key=lambda found: found[1].p50_ms)
        raise EdgeAdError(
            f"no point meets {target_text(target_ms, target_fps)}; the fastest ({fastest.point}) takes "
            f"{time.p50_ms:.1f} ms and reaches {time.per_second:.1f} frames/s",
            "a target that one of them meets",
            "choose another target, or fit smaller variants: edge-ad fit --variants",
        )
    best = max(a.value for _, _, a in meets)
    # A correlation has no such noise: the exact model stays the best.
    tie = TIE if any(a.ranked for _, _, a in meets) else 0.0
    return min((found for found in meets if found[2].value >= best - tie), key=lambda found: found[1].p50_ms)[0]


def target_text(target_ms: float | None, target_fps: float | None) -> str:
    """The targets for people."""
    told = [f"{target_ms:g} ms"] if target_ms else []
    return " and ".join(told + ([f"{target_fps:g} frames/s"] if target_fps else []))


def check_calibration_parts(bundle: Bundle, data: Dataset, split: str, rate: float) -> None:
    """Refuse before the work what the thresholds would refuse after it: every class needs held-out good parts."""
    bundle.writable("the tuned point cannot be set")
    for name in bundle.class_names:
        items = data.select(name, split, "good")
        if not items:
            raise EdgeAdError(
                f"{data.root} has no good parts of class '{name}' in the split '{split}'",
                "held-out good parts of every class: the thresholds of the chosen point are set on them",
                "name another folder, or another --split",
            )
        threshold_for(np.zeros(len(items)), rate, class_name=name)


def tune(
    bundle: Bundle,
    data: Dataset,
    points: Sequence[OperatingPoint],
    *,
    target_ms: float | None = None,
    target_fps: float | None = None,
    split: str = "validation",
    rate: float = 0.05,
    frames: int = 20,
    limit: int = 0,
    jobs: int = 0,
    say: Callable[[str], None] = lambda _: None,
    show: Callable[[Sequence[Row]], None] = lambda _: None,
    track: Track | None = None,
) -> Tuning:
    """Measure ``points``, choose, set the thresholds anew and write the choice into the bundle.

    Parameters
    ----------
    target_ms, target_fps : at least one of them (:func:`choose`).
    frames : timed frames a point. limit : test parts a class and defect; 0: all. show : gets all rows before the
        choice, so that they are seen even if none meets the target. track : wraps the parts to show progress.

    Raises
    ------
    EdgeAdError
        No held-out good parts for the thresholds, too few for the rate, or no point that meets the target.
    """
    check_calibration_parts(bundle, data, split, rate)
    timed = data.select(None, "test", None) or data.select(None, split, "good")
    few = tuple(timed[i] for i in np.unique(np.linspace(0, len(timed) - 1, FRAMES_KEPT).astype(int)))
    rows: list[Row] = []
    for number, point in enumerate(points, start=1):
        try:
            time = time_afresh(Timing(bundle.path, point, few, frames))
            rows.append(Row(point, time))
            say(f"{number}/{len(points)} {point}: {time.p50_ms:.1f} ms, {time.per_second:.1f} frames/s")
        except EdgeAdError as e:
            rows.append(Row(point, reason=str(e)))
            say(f"{number}/{len(points)} {point}: left out: {e}")
    if rows[0].reason:
        raise EdgeAdError(f"the exact float32 model cannot be measured: {rows[0].reason}")
    exact = None
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        if not row.reason:
            groups.setdefault((row.point.variant, row.point.precision, row.point.backend), []).append(i)
    for number, (shared, members) in enumerate(groups.items(), start=1):
        of = [rows[i].point for i in members]
        strides = ", ".join(str(p.stride) for p in of)
        say(f"accuracy {number}/{len(groups)}: {', '.join(shared)}; strides {strides}")
        found, exact = measure_accuracy(bundle, data, of, exact, split=split, limit=limit, jobs=jobs, track=track)
        for i, accuracy in zip(members, found, strict=True):
            rows[i] = replace(rows[i], accuracy=accuracy)
    rows = mark_pareto(rows)
    show(rows)
    chosen = choose(rows, target_ms, target_fps)
    p = chosen.point
    say(f"thresholds of {p}")
    report = calibrate(
        bundle.as_variant(p.variant, p.stride),
        data,
        split=split,
        rate=rate,
        backend=p.backend,
        precision=p.precision,
        jobs=jobs,
        track=track,
    )
    base = rows[0].accuracy
    measured = {
        **{k: v for k, v in (("target_ms", target_ms), ("target_fps", target_fps)) if v},
        "false_reject_rate": rate,
        "data": data.root.resolve().name,
        "processor": processor_name(),
        "threads": cores(),
        "set_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rows": [
            r.to_json() | ({} if base is None else {"exact": {k: v for k, v in asdict(base).items() if v is not None}})
            for r in rows
        ],
    }
    bundle.with_point(replace(p, measured=measured))
    return Tuning(tuple(rows), chosen, report, report.warnings, measured)
