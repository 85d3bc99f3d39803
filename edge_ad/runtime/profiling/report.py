"""A profile for the terminal, as a chart, and beside another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, write_bytes
from edge_ad.runtime.profiling.floor import ASSUMPTIONS
from edge_ad.runtime.profiling.measure import Profile


def to_text(p: Profile) -> str:
    """Tables for people."""
    peak = p.peak
    lines = [
        f"{p.point}; {p.frames} frames of {p.valid_pixels:.0f} valid pixels, {p.threads or peak.threads} threads, "
        f"{peak.processor}",
        "",
        f"{'stage, ms':16} {'p50':>8} {'p90':>8} {'p99':>8} {'GFLOP':>8} {'floor':>8} {'moving':>8} {'p50/floor':>9}",
    ]
    for name, s in p.stages.items():
        row = f"{name:16} {s['p50']:8.2f} {s['p90']:8.2f} {s['p99']:8.2f}"
        w = p.work.get(name)
        if w is not None:
            floor = w.floor_ms(peak)
            row += f" {w.gflop:8.3f} {floor:8.2f} {w.traffic_ms(peak):8.2f} {s['p50'] / max(floor, 1e-9):9.1f}"
        lines.append(row)
    if p.work:
        floor = sum(w.floor_ms(peak) for w in p.work.values())
        gflop = sum(w.gflop for w in p.work.values())
        lines.append(f"{'all graphs':16} {'':8} {'':8} {'':8} {gflop:8.3f} {floor:8.2f}")
        lines.append(
            f"floor: counted operations at the {peak.gflops:.0f} GFLOP/s of a float32 product measured here; moving: "
            f"the graphs' bytes at the {peak.copy_gb_s:.1f} GB/s of a copy"
        )
    else:
        lines.append("no floor: this bundle holds no counts; export it again")
    warm = ", ".join(f"{v:.0f}" for v in p.warm_up_ms) or "none"
    lines += [
        f"warm-up (not counted above): {warm} ms",
        f"first mask: {p.first_mask_s:.2f} s after the bundle was opened, {p.since_start_s:.2f} s after the process "
        "started",
        "",
        "memory, MB: " + ", ".join(f"{k.replace('_', ' ')} {v:.1f}" for k, v in p.memory.items()),
    ]
    if p.projection:
        lines += ["", "projection for boards, ms a frame for the four graphs in FP16:"]
        lines += [f"  {b['name']:22} {b['ms_best']:6.1f} to {b['ms_worst']:.1f}" for b in p.projection]
        lines += [f"  - {a}" for a in ASSUMPTIONS]
    return "\n".join(lines)


@dataclass(frozen=True)
class Earlier:
    """What an earlier profile is compared by: medians a stage, memory, and what it was taken of, for people."""

    told: str
    p50_ms: dict[str, float]
    memory_mb: dict[str, float]


def read_earlier(path: Path) -> Earlier:
    """A file of ``edge-ad profile --json``.

    Raises
    ------
    EdgeAdError
        The file is no profile.
    """
    then = read_json(path)
    try:
        point, machine = then["point"], then["machine"]
        return Earlier(
            f"{path}: {point['variant']}, stride {point['stride']}, {point['precision']}, {point['backend']}; "
            f"{machine['processor']}, {machine['threads']} threads",
            {n: float(s["p50"]) for n, s in then["stages_ms"].items()},
            {k: float("nan") if v is None else float(v) for k, v in then["memory_mb"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise EdgeAdError(f"{path} is no profile", "a file of edge-ad profile --json") from None


def compare_text(now: dict[str, Any], then: Earlier) -> str:
    """The medians of two profiles side by side; ``now``: as JSON."""
    before, memory = then.p50_ms, then.memory_mb
    lines = [f"against {then.told}", f"{'p50, ms':16} {'then':>8} {'now':>8} {'now/then':>9}"]
    for name, stage in now["stages_ms"].items():
        old = before.get(name)
        row = f"{name:16} {'-' if old is None else format(old, '.2f'):>8} {stage['p50']:8.2f}"
        lines.append(row + (f" {stage['p50'] / old:9.2f}" if old else ""))
    for name in ("steady", "peak"):
        if memory.get(name) and now["memory_mb"].get(name):
            old, new = memory[name], now["memory_mb"][name]
            lines.append(f"{name + ', MB':16} {old:8.1f} {new:8.1f} {new / old:9.2f}")
    return "\n".join(lines)


def chart(p: Profile, path: Path) -> None:
    """A PNG: a bar a stage (p50, with a line to p99), the floor as a dark mark."""
    names = [n for n in p.stages if n != "total"]
    width, row, left, top = 960, 34, 190, 84
    height = top + row * (len(names) + 1) + 56
    image = np.full((height, width, 3), 255, np.uint8)
    longest = max(max(p.stages[n]["p99"] for n in p.stages), 1e-6)
    scale = (width - left - 110) / longest

    def text(words: str, x: int, y: int, size: float = 0.5, colour: tuple[int, int, int] = (30, 30, 30)) -> None:
        cv2.putText(image, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)

    text(f"edge-ad profile: {p.point}", 16, 30, 0.62)
    text(f"{p.frames} frames, {p.peak.processor}, {p.threads or p.peak.threads} threads; ms, p50 and p99", 16, 54, 0.42)
    for i, name in enumerate([*names, "total"]):
        y = top + i * row
        s = p.stages[name]
        colour = (60, 60, 60) if name == "total" else (190, 120, 40)
        end = left + int(s["p50"] * scale)
        cv2.rectangle(image, (left, y), (max(end, left + 1), y + 20), colour, -1)
        cv2.line(image, (end, y + 10), (left + int(s["p99"] * scale), y + 10), (120, 120, 120), 2)
        w = p.work.get(name)
        if w is not None:
            x = left + int(w.floor_ms(p.peak) * scale)
            cv2.line(image, (x, y - 3), (x, y + 23), (20, 20, 160), 2)
        text(name, 16, y + 15)
        text(f"{s['p50']:.1f}", left + int(s["p99"] * scale) + 8, y + 15, 0.45)
    text(
        f"red: floor at {p.peak.gflops:.0f} GFLOP/s measured here; steady {p.memory['steady']:.0f} MB, "
        f"peak {p.memory['peak']:.0f} MB",
        16,
        height - 20,
        0.42,
    )
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise EdgeAdError(f"{path}: OpenCV could not encode the chart")
    write_bytes(path, data.tobytes())
