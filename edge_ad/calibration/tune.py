"""Choose variant, score stride, precision and backend on this box by measurement. No torch.

Every candidate is timed in a process of its own, so that its memory is its own; then its accuracy is measured on the
data's test split. The choice is the most accurate candidate whose median latency meets the target (ties: the faster).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.calibration.accuracy import Accuracy, Track, measure_accuracy
from edge_ad.calibration.limits import LimitsReport, calibrate
from edge_ad.calibration.thresholds import threshold_for
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.parallel import cores, end_with_parent
from edge_ad.runtime.profiling.machine import processor_name

FRAMES_KEPT = 6
"""Different frames that the timing cycles through: few, so that the memory is the detector's."""
TIE = 5e-4
"""Means of I-AUROC and AUPRO that differ by less count as equal."""


@dataclass(frozen=True)
class Row:
    """One candidate. p50_ms, p90_ms : one frame, all threads. peak_mb : of the process. reason : why it is out."""

    point: OperatingPoint
    p50_ms: float = float("nan")
    p90_ms: float = float("nan")
    peak_mb: float = float("nan")
    accuracy: Accuracy | None = None
    reason: str = ""
    pareto: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, without what was not measured."""
        p = self.point
        found: dict[str, Any] = {
            "variant": p.variant,
            "stride": p.stride,
            "precision": p.precision,
            "backend": p.backend,
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "peak_mb": self.peak_mb,
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


@dataclass(frozen=True)
class Timing:
    """Picklable job of one timing."""

    path: Path
    point: OperatingPoint
    items: tuple[Item, ...]
    frames: int


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


def time_point(job: Timing) -> tuple[float, float, float]:
    """(p50 ms, p90 ms, peak MB) of one point, in this process; the golden frames decide about it first."""
    from edge_ad.engines.gate import ensure
    from edge_ad.runtime.detector import Detector
    from edge_ad.runtime.profiling.memory import peak_mb

    point = job.point
    view = Bundle.open(job.path, verify=False).as_variant(point.variant, point.stride)
    detector = Detector(view, point.backend, point.precision, cores(), need_threshold=False)
    ensure(detector, point.backend)
    frames = []
    for item in job.items:
        try:
            frames.append(item.frame())
        except InvalidFrame:
            continue
    if not frames:
        raise EdgeAdError("none of the frames to time could be read", "at least one")
    for frame in frames[:2]:
        detector(frame)
    times = [detector(frames[i % len(frames)]).times_ms["total"] for i in range(job.frames)]
    p50, p90 = np.percentile(times, (50, 90))
    return float(p50), float(p90), peak_mb()


def in_own_process(function: Callable[[Timing], tuple[float, float, float]], job: Timing) -> tuple[float, float, float]:
    """``function(job)`` in a fresh process, whose memory holds nothing else."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
        try:
            return pool.submit(function, job).result()
        except BrokenProcessPool:
            raise EdgeAdError("the process died", "it to end well", "free some memory") from None


def mark_pareto(rows: Sequence[Row]) -> list[Row]:
    """Mark the rows that no other one beats in latency, memory and accuracy at once."""

    def figures(row: Row) -> tuple[float, float, float]:
        assert row.accuracy is not None
        return row.p50_ms, row.peak_mb, -row.accuracy.value

    alive = [r for r in rows if not r.reason and r.accuracy is not None]

    def beaten(row: Row) -> bool:
        mine = figures(row)
        return any(
            all(a <= b for a, b in zip(figures(other), mine)) and figures(other) != mine
            for other in alive
            if other is not row
        )

    return [replace(r, pareto=r in alive and not beaten(r)) for r in rows]


def choose(rows: Sequence[Row], target_ms: float) -> Row:
    """The most accurate row whose median meets the target; of equal ones the fastest.

    Raises
    ------
    EdgeAdError
        None meets it: which is the fastest, and how fast that is.
    """
    alive = [r for r in rows if not r.reason and r.accuracy is not None]
    meets = [r for r in alive if r.p50_ms <= target_ms]
    if not alive:
        raise EdgeAdError("no candidate could be measured", "at least one", rows[0].reason if rows else "")
    if not meets:
        fastest = min(alive, key=lambda r: r.p50_ms)
        raise EdgeAdError(
            f"no point meets {target_ms:g} ms; the fastest ({fastest.point}) takes {fastest.p50_ms:.1f} ms",
            "a target that one of them meets",
            "raise --target-ms, or fit smaller variants: edge-ad fit --variants",
        )
    best = max(r.accuracy.value for r in meets if r.accuracy is not None)
    ranked = any(r.accuracy.ranked for r in meets if r.accuracy is not None)
    tie = TIE if ranked else 0.0  # a correlation has no such noise: the exact model stays the best
    near = [r for r in meets if r.accuracy is not None and r.accuracy.value >= best - tie]
    return min(near, key=lambda r: r.p50_ms)


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
    target_ms: float,
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
            p50, p90, peak = in_own_process(time_point, Timing(bundle.path, point, few, frames))
            rows.append(Row(point, p50, p90, peak))
            say(f"{number}/{len(points)} {point}: {p50:.1f} ms")
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
    chosen = choose(rows, target_ms)
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
        "target_ms": target_ms,
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
