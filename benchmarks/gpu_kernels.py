"""Time of every kernel on this GPU beside its floor: point operations, scoring and map, without the networks.

    python benchmarks/gpu_kernels.py [--size 224 --groups 1024 --group-size 32 --storage f16 --json out.json]

The default sizes are the paper's (METHOD.md) with every pixel valid. Weights and tables are random: the time of these
kernels does not depend on them. Each launch is timed by two events, the median over the repetitions is shown; launches
of one kernel are added. The floor is the count of bytes and operations (``runtime/kernels/cost.py``, ``score_cost.py``)
over what the device is said to do; events around single launches add some microseconds each. At last the stages are run
as CUDA graphs, as the pipeline runs them, and timed as wholes.
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

from edge_ad.errors import EdgeAdError
from edge_ad.presets import load_preset
from edge_ad.runtime.device.anomaly_map import MapStage
from edge_ad.runtime.device.api import Argument, Stream
from edge_ad.runtime.device.buffers import Arena
from edge_ad.runtime.device.kernels import KernelSet
from edge_ad.runtime.device.points import PointBranch
from edge_ad.runtime.device.score import FusedScore, Taps
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.slot import Slot
from edge_ad.runtime.device.weights import Layer, ScoreWeights, TextLayer
from edge_ad.runtime.driver import PyCudaDriver
from edge_ad.runtime.kernels.cost import Problem, costs, grouping_work, interpolation_work, sampling_work
from edge_ad.runtime.kernels.floor import DEVICES, Device
from edge_ad.runtime.kernels.launch import Launch, consecutive_buckets, smoothing, tile_buckets
from edge_ad.runtime.kernels.score_cost import ScoreProblem, score_costs


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


def problem(a: argparse.Namespace) -> tuple[Sizes, ScoreWeights]:
    """Sizes and random weights; hidden widths by the rule of METHOD.md section 3."""
    rng = np.random.default_rng(0)

    def layer(inputs: int, outputs: int, column: int) -> Layer:
        hidden = (inputs + outputs) // 2
        weight = np.triu(rng.normal(0, hidden**-0.5, (min(outputs, hidden + 1), hidden))).astype(np.float32)
        return Layer(weight, np.zeros(len(weight), np.float32), column)

    d_rgb, d_3d, d_txt = a.dim_rgb, a.dim_points, a.dim_text
    to_rgb = layer(d_3d, d_rgb, d_3d)
    texts = [layer(d_rgb, d_txt, d_rgb + 4 * d_3d), layer(d_3d, d_txt, d_3d + to_rgb.hidden)]
    pair = [TextLayer(t, np.eye(10, t.rank, dtype=np.float32), np.zeros(10, np.float32)) for t in texts]
    weights = ScoreWeights(
        d_rgb + 4 * d_3d + texts[0].hidden,
        d_3d + to_rgb.hidden + texts[1].hidden,
        d_rgb,
        d_3d,
        np.ones(d_3d, np.float32),
        np.zeros(d_3d, np.float32),
        1e-5,
        to_rgb,
        (pair[0], pair[1]),
    )
    sizes = Sizes(
        size=a.size,
        stride=1,
        score_stride=1,
        grid=a.grid,
        dim_rgb=d_rgb,
        groups=a.groups,
        group_size=a.group_size,
        dim_points=d_3d,
        pool=1,
        rgb_width=weights.rgb_width,
        point_width=weights.point_width,
        classes=10,
        levels=False,
        drawn=tile_buckets(a.size),
        near=consecutive_buckets(a.groups),
        every=tile_buckets(a.size),
    )
    return sizes, weights


def floors(a: argparse.Namespace, s: Sizes, w: ScoreWeights, cloud: np.ndarray, device: Device) -> dict[str, float]:
    """Kernel -> milliseconds."""
    from edge_ad.runtime.pointops import farthest_point_sample

    pixels = a.size * a.size
    rank = np.arange(pixels, dtype=np.int32).reshape(a.size, a.size)
    centers = cloud[farthest_point_sample(cloud, a.groups)]
    sampling = sampling_work(cloud, s.drawn, a.groups, rank, a.size)
    grouping = grouping_work(cloud, centers, a.group_size, s.drawn, rank, a.size)
    between = interpolation_work(cloud, centers, s.every, rank, a.size)
    filters = smoothing(load_preset("paper").fusion)
    out: dict[str, float] = defaultdict(float)
    p = Problem(480, 640, 640, a.size, pixels, a.groups, a.group_size)
    for cost in costs(p, s.drawn, sampling, grouping, between, filters):
        out[cost.kernel] += cost.floor_ms(device)
    assert w.text is not None
    pairs = tuple((t.layer.hidden, t.layer.rank) for t in w.text)
    to_rgb = (w.points_to_rgb.hidden, w.points_to_rgb.rank)
    q = ScoreProblem(
        pixels, pixels, a.grid**2, a.groups, s.rgb_width, s.point_width, w.dim_rgb, w.dim_points, to_rgb, pairs,
        a.storage == "f16",
    )  # fmt: skip
    for score in score_costs(q):
        out[score.kernel] += score.floor_ms(device)
    return out


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
    y, x = np.mgrid[: a.size, : a.size].astype(np.float32) / a.size
    rng = np.random.default_rng(1)
    cloud = np.stack([x - 0.5, y - 0.5, 0.4 + 0.05 * np.sin(9 * x) * y], axis=-1) * np.float32(0.2)
    cloud = (cloud + rng.normal(0, 2e-4, cloud.shape)).astype(np.float32).reshape(-1, 3)
    kernels = TimedKernels(driver, device_images(driver))
    arena, stream = Arena(driver), driver.stream()
    half = a.storage == "f16"
    slot = Slot(driver, s, half, s.classes, s.pixels)
    preset = load_preset("paper")
    points = PointBranch(kernels, arena, s, preset.points, 1.0)
    points.prepare(arena, stream)
    taps = Taps(arena, s, stream)
    score = FusedScore(w, kernels, arena, s, taps, half, True, stream)
    maps = MapStage(driver, kernels, arena, s, taps, preset.fusion, (1.0, 1.0, 1.0), True, stream)
    slot.put_class(0)
    for piece, value in ((slot.sample_cloud, cloud.reshape(slot.sample_cloud.shape)), (slot.sample_valid, 1)):
        piece.array[:] = value
    for piece in (slot.report_in, slot.plan_in, slot.sample_cloud, slot.sample_valid):
        piece.send(stream)
    for memory, shape in ((slot.rgb_table, (s.rgb_tokens, s.rgb_width)), (slot.point_table, (s.groups, s.point_width))):
        host = arena.pinned(shape)
        host.array.view(np.float32)[:] = rng.normal(size=int(np.prod(shape))).astype(np.float32)
        driver.upload(memory, host, host.nbytes, stream)
    stages = {
        "points (FPS, grouping, weights)": lambda: points.enqueue(slot, stream),
        "scoring": lambda: score.enqueue(slot, stream, False, s.pixels),
        "map": lambda: maps.enqueue(slot, stream),
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
    slot.free()
    arena.free()
    return document


if __name__ == "__main__":
    sys.exit(main())
