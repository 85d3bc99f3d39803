"""One run of a detector, timed stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.runtime.profiling.floor import ASSUMPTIONS, Work, count_work, project
from edge_ad.runtime.profiling.machine import Peak, measure_peak
from edge_ad.runtime.profiling.memory import peak_mb, process_age_s, resident_mb

QUANTILES = (50, 90, 99)
CAPTURE = "capture"


@dataclass(frozen=True)
class Profile:
    """Figures of one profile; times in milliseconds, memory in 10^6 bytes.

    stages : stage -> p50, p90, p99, mean over the frames after the warm-up, in the order of the work, ``total`` last.
    warm_up : milliseconds of each frame before them. first_mask_s : from opening the bundle to the first result;
    since_start_s : from the start of the process. memory : see docs/profile.md. work : counts a stage.
    """

    point: OperatingPoint
    frames: int
    threads: int | None
    valid_pixels: float
    stages: dict[str, dict[str, float]]
    warm_up_ms: list[float]
    first_mask_s: float
    since_start_s: float
    memory: dict[str, float]
    work: dict[str, Work]
    peak: Peak
    projection: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        p = self.peak
        return {
            "point": {k: v for k, v in self.point.to_dict().items() if k != "measured"},
            "frames": self.frames,
            "threads": self.threads,
            "valid_pixels": self.valid_pixels,
            "machine": p.__dict__,
            "stages_ms": self.stages,
            "warm_up_ms": self.warm_up_ms,
            "first_mask_s": self.first_mask_s,
            "since_process_start_s": self.since_start_s,
            "memory_mb": self.memory,
            "work": {
                s: {**w.__dict__, "floor_ms": w.floor_ms(p), "traffic_ms": w.traffic_ms(p)}
                for s, w in self.work.items()
            },
            "floor_ms": sum(w.floor_ms(p) for w in self.work.values()) if self.work else None,
            "projection": {"assumptions": list(ASSUMPTIONS), "boards": self.projection} if self.projection else None,
        }


def profile(
    bundle: Bundle,
    point: OperatingPoint,
    source: Iterable[Any],
    *,
    frames: int = 50,
    warm_up: int = 3,
    threads: int | None = None,
    class_name: str | None = None,
    on_device: bool = False,
    track: Callable[[Iterable[Any], int, str], Iterable[Any]] | None = None,
) -> Profile:
    """Inspect ``frames`` frames of ``source`` one after the other and time every stage.

    Parameters
    ----------
    source : frames (other objects are passed over). It may be endless. warm_up : frames before those that count.
    threads : of the backend; None: one a core. on_device : the device pipeline (TensorRT); its stages are timed by
        events and its memory is added.

    Raises
    ------
    EdgeAdError
        The source gave fewer frames than the warm-up and one more, or none of them could be inspected.
    """
    from edge_ad.runtime.detector import Detector

    before = resident_mb()
    started = time.perf_counter()
    view = bundle.as_variant(point.variant, point.stride)
    detector: Detector
    if on_device:
        from edge_ad.runtime.device.detector import DeviceDetector

        detector = DeviceDetector(view, point.backend, point.precision, class_name, need_threshold=False)
    else:
        detector = Detector(view, point.backend, point.precision, threads, class_name, need_threshold=False)
    loaded = resident_mb()
    rows: list[dict[str, float]] = []
    warm: list[float] = []
    pixels: list[int] = []
    resident: list[float] = []
    first = since = float("nan")
    wanted = islice(_timed(source), warm_up + frames)
    invalid = 0
    for number, (frame, captured) in enumerate(track(wanted, warm_up + frames, "profile") if track else wanted):
        result = detector(frame)
        took = {CAPTURE: captured, **result.times_ms}
        took["total"] += captured
        if result.valid is None:
            invalid += 1
            continue
        if first != first:
            first, since = time.perf_counter() - started, process_age_s()
        if number < warm_up:
            warm.append(took["total"])
            continue
        rows.append(took)
        pixels.append(int(result.valid.sum()))
        resident.append(resident_mb())
    if not rows:
        raise EdgeAdError(
            f"no frame was left to time after {warm_up} of warm-up ({invalid} could not be inspected)",
            "frames with a part in view",
            "name another --camera, or fewer --warm-up frames",
        )
    names = list(dict.fromkeys(n for row in rows for n in row if n != "total")) + ["total"]
    stages = {n: _spread([row.get(n, 0.0) for row in rows]) for n in names}
    peak_after = peak_mb()
    weights = sum((view.path / view.graph_file(g, point.precision)).stat().st_size for g in view.manifest.graphs) / 1e6
    memory = {
        "before_load": before,
        "weights": weights,
        "loaded": loaded,
        "steady": float(np.median(resident)),
        "workspace": float(np.median(resident)) - before - weights,
        "peak": peak_after,
        "growth": resident[-1] - resident[0],
    }
    memory |= getattr(detector, "device_memory_mb", dict)()
    step = point.stride**2
    work = count_work(view, float(np.mean(pixels)) / step)
    return Profile(
        point,
        len(rows),
        threads,
        float(np.mean(pixels)),
        stages,
        warm,
        first,
        since,
        memory,
        work,
        measure_peak(threads),
        project(work),
    )


def _timed(source: Iterable[Any]) -> Iterator[tuple[Frame, float]]:
    """Frames and the milliseconds until the source gave them."""
    start = time.perf_counter()
    for frame in source:
        if isinstance(frame, Frame):
            yield frame, (time.perf_counter() - start) * 1e3
        start = time.perf_counter()


def _spread(values: list[float]) -> dict[str, float]:
    found = np.percentile(values, QUANTILES)
    return {**{f"p{q}": float(v) for q, v in zip(QUANTILES, found)}, "mean": float(np.mean(values))}
