"""Capture to Sample on one core: a RealSense frameset with its alignment on the CPU, and the preprocessing after it.

The SDK's software device stands for the camera: frames go through its pipeline, pairing and alignment; USB transfer
and exposure are not in the figures. The scene is calibrated, as on a line: the plane is a test per pixel.
Targets: 15 ms at 640x480, 35 ms at 1280x720.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402

import numpy as np  # noqa: E402
from common import keep, parser  # noqa: E402

from edge_ad.evaluation.tables import Table  # noqa: E402
from edge_ad.frame import Frame, Intrinsics  # noqa: E402
from edge_ad.presets import load_preset  # noqa: E402
from edge_ad.runtime.geometry import border_ring, fit_plane, frame_xyz  # noqa: E402
from edge_ad.runtime.preprocess import Preprocessor, Scene  # noqa: E402
from edge_ad.runtime.registration import registered  # noqa: E402
from edge_ad.runtime.scene_check import SEEN_STRIDE, SceneSetup  # noqa: E402

MODES = {(640, 480): 15.0, (1280, 720): 35.0}
STAGES = ("frameset to Frame", "of that alignment", "Frame to Sample", "together", "our registration instead")
STAGES += ("Frame to Sample, plane unknown",)
WARM_UP = 5


def pictures(width: int, height: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(depth uint16 in 0.1 mm, colour): a textured box on a slightly tilted plane, with depth noise and holes."""
    y, x = np.mgrid[:height, :width]
    depth = 6000 + 0.05 * x + rng.normal(0, 4, (height, width))
    box = (abs(x - width / 2) < width / 6) & (abs(y - height / 2) < height / 5)
    depth[box] -= 400
    depth[rng.random(depth.shape) < 0.01] = 0
    colour = rng.integers(60, 80, (height, width, 3), dtype=np.uint8)
    colour[box] += 100
    return depth.astype(np.uint16), colour


def calibrated(prepare: Preprocessor, frame: Frame) -> Preprocessor:
    """The preprocessor with the scene that a calibration would have found in ``frame``."""
    xyz = frame_xyz(frame)
    g = prepare.geometry
    ring = xyz[border_ring(xyz[..., 2] > 0, g.border_share)]
    plane = fit_plane(ring, g.plane_distance_m, g.ransac_iterations)
    seen = np.abs(plane.height(xyz[::SEEN_STRIDE, ::SEEN_STRIDE])) < g.plane_distance_m
    height, width = frame.shape
    setup = SceneSetup(height, width, plane, seen, 0.5, (0.3, 0.9), 4e-4, 4e-4, 0.5, (1.0, 1.0))
    return replace(prepare, scenes={"part": Scene(setup=setup)})


def measure(width: int, height: int, frames: int, seed: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Milliseconds of every stage and frame, after ``WARM_UP`` frames."""
    import pyrealsense2 as rs

    from edge_ad.sensors.realsense_frames import FrameMaker
    from edge_ad.sensors.realsense_simulated import SimulatedDevice

    rng = np.random.default_rng(seed)
    focal = 0.95 * width
    device = SimulatedDevice(rs, Intrinsics(width, height, focal, focal * 1.001, width / 2 - 0.3, height / 2 + 0.2))
    pipeline = rs.pipeline()
    pipeline.set_device(device.device)
    pipeline.start(rs.config())
    aligned, raw = (FrameMaker(rs, "benchmark", None, align, 1.0) for align in (True, False))
    preset = load_preset("compact")
    unknown = Preprocessor(preset.geometry, preset.rgb.mean, preset.rgb.std)
    prepare: Preprocessor | None = None
    times: dict[str, list[float]] = {name: [] for name in STAGES}
    for number in range(1, frames + WARM_UP + 1):
        device.push(*pictures(width, height, rng), number)
        ok, frameset = pipeline.try_wait_for_frames(2000)
        if not ok:
            raise RuntimeError(f"no frameset {number}")
        started = clock()
        frame = aligned(frameset)
        captured = clock()
        assert frame is not None
        prepare = prepare or calibrated(unknown, frame)
        between = clock()
        prepare(frame, "part")
        prepared = clock()
        own = raw(frameset)
        copied = clock()
        assert isinstance(own, Frame)
        registered(own)
        done = clock()
        unknown(frame)
        fitted = clock()
        if number > WARM_UP:
            copy_ms = (copied - prepared) * 1e3
            for name, ms in (
                ("frameset to Frame", (captured - started) * 1e3),
                ("of that alignment", (captured - started) * 1e3 - copy_ms),
                ("Frame to Sample", (prepared - between) * 1e3),
                ("together", (captured - started + prepared - between) * 1e3),
                ("our registration instead", (done - copied) * 1e3),
                ("Frame to Sample, plane unknown", (fitted - done) * 1e3),
            ):
                times[name].append(ms)
    pipeline.stop()
    return times


def table(results: dict[str, dict[str, list[float]]]) -> Table:
    """Median and 99th percentile of every stage, beside the target."""
    rows = []
    for mode, times in results.items():
        target = MODES[(int(mode.split("x")[0]), int(mode.split("x")[1]))]
        for name, ms in times.items():
            limit = f"{target:.0f}" if name == "together" else ""
            rows.append([mode, name, f"{np.median(ms):.1f}", f"{np.percentile(ms, 99):.1f}", limit])
    return Table("Capture to Sample, one core", ["mode", "stage", "median ms", "p99 ms", "target ms"], rows)


def main() -> int:
    """Measure both modes, print the table, write results/capture.json and .md. 1 when a median misses its target."""
    made: argparse.ArgumentParser = parser(__doc__, parts=False)
    made.add_argument("--frames", type=int, default=100)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: this thread's, for a busy machine")
    args = made.parse_args()
    import cv2

    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clock = time.perf_counter if args.clock == "wall" else time.thread_time
    results = {f"{w}x{h}": measure(w, h, args.frames, args.seed, clock) for w, h in MODES}
    shown = table(results)
    print(shown.to_text())
    medians = {mode: {k: round(float(np.median(v)), 2) for k, v in times.items()} for mode, times in results.items()}
    keep(args.results, "capture", args, {"median_ms": medians}, [shown])
    missed = [f"{w}x{h}" for (w, h), ms in MODES.items() if medians[f"{w}x{h}"]["together"] > ms]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
