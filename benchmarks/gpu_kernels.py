"""Time of every kernel on this GPU beside its floor: from the depth image to the areas, without the networks.

    python benchmarks/gpu_kernels.py [--size 224 --groups 1024 --group-size 32 --storage f16 --json out.json]

The default sizes are the paper's (METHOD.md) with every pixel valid, cut from a frame of 640 x 480 whose depth lies on
a grid of its own. Weights and tables are random: the time of these kernels does not depend on them. Each launch is
timed by two events, the median over the repetitions is shown; launches of one kernel are added. The floor is the count
of bytes and operations (``runtime/kernels/cost.py``, ``score_cost.py``) over what the device is said to do; events
around single launches add some microseconds each. At last the stages are run as CUDA graphs, as the pipeline runs them,
and timed as wholes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))  # also for `python -m benchmarks.NAME`
from gpu_problem import floors, problem, scene  # noqa: E402

from edge_ad.errors import EdgeAdError
from edge_ad.presets import load_preset
from edge_ad.runtime.device.anomaly_map import MapStage
from edge_ad.runtime.device.api import Argument, Stream
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.front import FrontEnd, PixelTest
from edge_ad.runtime.device.judge import JudgeStage
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.score import FusedScore, Taps
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.device.slot import window as window_arguments
from edge_ad.runtime.driver import PyCudaDriver
from edge_ad.runtime.geometry import Plane, depth_to_xyz
from edge_ad.runtime.kernels.floor import DEVICES, Device
from edge_ad.runtime.kernels.launch import (
    Launch,
    bicubic_table,
    compact_launch,
    preprocess_launch,
)
from edge_ad.runtime.limits import Limits
from edge_ad.runtime.preprocess import nearest_to_sample


class TimedKernels(KernelSet):
    """Records an event before and after every launch."""

    def __init__(self, driver: Any, images: dict[str, bytes]) -> None:
        super().__init__(driver, images)
        self._driver: Any = driver
        self.events: list[tuple[str, Any, Any]] | None = None

    def run(self, entry: str, launch: Launch, stream: Stream, *arguments: Argument) -> None:
        """Queue a kernel, between two events while timing is on."""
        if self.events is None:
            super().run(entry, launch, stream, *arguments)
            return
        start, end = self._driver.event(timing=True), self._driver.event(timing=True)
        self._driver.record(start, stream)
        super().run(entry, launch, stream, *arguments)
        self._driver.record(end, stream)
        self.events.append((entry, start, end))


def device_images(driver: Any) -> dict[str, bytes]:
    """Every kernel for this GPU."""
    if os.environ.get("EDGE_AD_CUDA_ON_HOST"):  # tests/gpu/cuda_on_host: shows that this program runs, nothing more
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tests.gpu.conftest import _images

        return _images(driver.capability)
    from edge_ad.engines.kernels import compile_kernel
    from edge_ad.runtime.kernels import names

    return {name: compile_kernel(name, driver.capability).cubin for name in names()}


def this_device(driver: Any) -> Device:
    """The entry of ``cost.DEVICES`` that it is, else what its driver says."""
    for device in DEVICES:
        if all(word in driver.name for word in device.name.split()[:1]) and "Orin" not in driver.name:
            return device
    count, clock, memory = driver.facts()
    if not (count and clock and memory):
        raise EdgeAdError(f"the driver of {driver.name} does not say its clock and memory", "a CUDA driver that does")
    return Device(driver.name, count, clock, memory)


def main() -> int:
    """Measure, print the table."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    for name, value in (("size", 224), ("grid", 28), ("groups", 1024), ("group-size", 32), ("dim-rgb", 768),
                        ("dim-points", 1152), ("dim-text", 512), ("repeat", 50)):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=value)
    made.add_argument("--storage", choices=("f32", "f16"), default="f16")
    made.add_argument("--json", type=Path)
    a = made.parse_args()
    try:
        driver = PyCudaDriver()
        with driver.current():
            document = measure(a, driver)
    except EdgeAdError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    if a.json:
        a.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(a: argparse.Namespace, driver: Any) -> dict[str, Any]:
    """Time everything on the device and print it."""
    device = this_device(driver)
    s, w = problem(a)
    frame, window = scene(a.size)
    assert frame.depth is not None and frame.intrinsics is not None
    xyz = depth_to_xyz(frame.depth, frame.depth_scale_m, frame.intrinsics)
    cloud = np.ascontiguousarray(nearest_to_sample(xyz, window), np.float32).reshape(-1, 3)
    rng = np.random.default_rng(1)
    kernels = TimedKernels(driver, device_images(driver))
    arena, stream = Arena(driver), driver.stream()
    half = a.storage == "f16"
    slot = Slot(driver, s, half, s.pixels)
    preset = load_preset("paper")
    points = PointBranch(kernels, arena, s, preset.points, 1.0)
    points.prepare(arena, stream)
    taps = Taps(arena, s, stream)
    score = FusedScore(w, kernels, arena, s, taps, half, True, False, stream)
    terms = ("rgb", "3d", "text_rgb", "text_3d")
    maps = MapStage(driver, kernels, arena, s, taps, preset.fusion, (1.0, 1.0, 1.0), terms, None, stream)
    judge = JudgeStage(kernels, arena, s, preset, [Limits(0.5, 0.5)] * s.classes, stream)
    front = FrontEnd(driver, kernels, stream)
    test = PixelTest(None, None, Plane((0.0, 0.0, -1.0), 0.6, 1.0), 0.005, 0.0)
    lease = front.put(frame, test)
    bounds, weights = bicubic_table(window.side, s.size)
    tables = arena.constant(bounds, stream), arena.constant(weights, stream), int(weights.shape[1])
    statistics_of = arena.constant(np.array([*preset.rgb.mean, *preset.rgb.std], np.float32), stream)

    def cut() -> None:
        image = lease.slot
        slot.report_in.send(stream)
        kernels.run("preprocess", preprocess_launch(window.side, s.size), stream, image.colour.memory, image.xyz,
                    image.flags, *window_arguments(window), *tables, statistics_of, slot.image, slot.cloud, slot.valid,
                    slot.lost)  # fmt: skip
        kernels.run("part_counts", compact_launch(s.size), stream, slot.valid, slot.lost, s.size, window.side, 1,
                    slot.report.counts)  # fmt: skip

    def masks() -> None:
        judge.enqueue(slot, stream)
        judge.join(slot, lease.slot, window, stream)
        judge.finish(lease.slot, stream)

    slot.put_class(0)
    slot.plan_in.send(stream)
    for memory, shape in ((slot.rgb_table, (s.rgb_tokens, s.rgb_width)), (slot.point_table, (s.groups, s.point_width))):
        host = arena.pinned(shape)
        host.array.view(np.float32)[:] = rng.normal(size=int(np.prod(shape))).astype(np.float32)
        driver.upload(memory, host, host.nbytes, stream)
    stages = {
        "depth to cloud": lambda: front.enqueue(lease.slot, frame, test),
        "cut": cut,
        "points (FPS, grouping, weights)": lambda: points.enqueue(slot, stream),
        "scoring": lambda: score.enqueue(slot, stream, False, s.pixels),
        "map": lambda: maps.enqueue(slot, stream),
        "masks, areas, copies to the host": masks,
    }
    for work in stages.values():  # modules are loaded, caches are warm
        work()
    driver.synchronize(stream)
    rows: dict[str, list[float]] = defaultdict(list)
    for _ in range(a.repeat):
        kernels.events = []
        for work in stages.values():
            work()
        driver.synchronize(stream)
        once: dict[str, float] = defaultdict(float)
        for entry, start, end in kernels.events:
            once[entry] += driver.elapsed_ms(start, end)
        for entry, took in once.items():
            rows[entry].append(took)
    kernels.events = None
    wholes: dict[str, float] = {}
    graphs = {name: driver.record_graph(stream, work) for name, work in stages.items()}
    for name, graph in graphs.items():
        took = []
        for _ in range(a.repeat):
            start, end = driver.event(timing=True), driver.event(timing=True)
            driver.record(start, stream)
            graph.launch(stream)
            driver.record(end, stream)
            driver.synchronize(end)
            took.append(driver.elapsed_ms(start, end))
        wholes[name] = statistics.median(took)
    floor = floors(a, s, w, cloud, device)
    print(f"{driver.name}: {s.pixels} pixels, {s.groups} x {s.group_size}, storage {a.storage}, median of {a.repeat}\n")
    print(f"| kernel | ms | floor on {device.name}, ms |\n| --- | --- | --- |")
    for entry, took in rows.items():
        least = f"{floor[entry]:.4f}" if entry in floor else "not counted"
        print(f"| {entry} | {statistics.median(took):.4f} | {least} |")
    print("\n| stage, as one CUDA graph | ms |\n| --- | --- |")
    for name, value in wholes.items():
        print(f"| {name} | {value:.4f} |")
    print(f"| device path without the encoders | {sum(wholes.values()):.4f} |")
    document = {
        "device": driver.name,
        "sizes": {k: v for k, v in vars(a).items() if k != "json"},
        "kernels_ms": {k: statistics.median(v) for k, v in rows.items()},
        "floor_ms": dict(floor),
        "stages_ms": wholes,
    }
    for graph in graphs.values():
        graph.free()
    judge.free()
    front.free()
    slot.free()
    arena.free()
    return document


if __name__ == "__main__":
    sys.exit(main())
