"""The frame, the sizes and the random weights that ``gpu_kernels.py`` runs, and the floors of its kernels."""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np

from edge_ad.frame import Extrinsics, Frame, Intrinsics, SampleTransform
from edge_ad.presets import load_preset
from edge_ad.runtime.device.sizes import Sizes
from edge_ad.runtime.device.weights import Layer, ScoreWeights, TextLayer
from edge_ad.runtime.kernels.cost import Problem, costs, grouping_work, interpolation_work, sampling_work
from edge_ad.runtime.kernels.floor import Device
from edge_ad.runtime.kernels.launch import consecutive_buckets, smoothing, tile_buckets
from edge_ad.runtime.kernels.score_cost import ScoreProblem, score_costs

HEIGHT, WIDTH = 480, 640


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


def scene(size: int) -> tuple[Frame, SampleTransform]:
    """A wavy surface that fills the window, on the depth camera's grid, which is the colour camera's own."""
    k = Intrinsics(WIDTH, HEIGHT, 600.0, 600.0, WIDTH / 2, HEIGHT / 2)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    rng = np.random.default_rng(1)
    z = 0.5 + 0.02 * np.sin(x / 40) * np.cos(y / 30) + rng.normal(0, 3e-4, x.shape)
    depth = np.rint(z * 1e4).astype(np.uint16)
    colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame = Frame(colour, depth, 1e-4, intrinsics=k, depth_intrinsics=k, extrinsics=Extrinsics())
    return frame, SampleTransform(0, (WIDTH - HEIGHT) // 2, HEIGHT, size, HEIGHT, WIDTH)


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
    p = Problem(HEIGHT, WIDTH, HEIGHT, a.size, pixels, a.groups, a.group_size)
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
