"""Does pretraining make point features see small local geometry? Random weights against pretrained ones.

Three measurements on shapes that no training run has drawn (seeds of their own):

1. *Dent signal to noise*. A clean view, the same view with one dent, each under independent sensor noise. Features are
   standardised a channel and L2-normalised, as the detector uses them. Signal: mean change of the groups inside the
   dent; noise: mean change of the same groups between two noisy views without a dent. Both share one grouping
   (centres of the first view), so the numbers are about features, not about farthest-point sampling. AUROC: how
   well the change tells a group in the dent from one outside.
2. *Linear probe*. Ridge regression from features to the noise-free local surface (height, slopes, curvatures,
   residual of a quadric fit), R^2 on shapes that the fit has not seen.
3. *Detection*. The task itself in small, the colour encoder replaced by perfect knowledge of the place on the part:
   each shape is seen in a few poses (turn, tilt, shift), each with its own noise and its own grouping; the expected
   feature of a group is the mean over poses of the features interpolated at the same place of the part; the score
   is the L2 distance to it; AUROC of groups in a dent against groups without, over held-out poses.

Run: python benchmarks/pretraining_probe.py [WEIGHTS ...]; each is a .safetensors file, "package" or "random".
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from edge_ad.evaluation.metrics import auroc
from edge_ad.models.pointmae import PointMae, load_point_encoder
from edge_ad.presets import load_preset
from edge_ad.runtime.pointops import farthest_point_sample, k_nearest
from edge_ad.training.pretrain.mae import local_geometry
from edge_ad.training.pretrain.shapes import View, draw

F32 = NDArray[np.float32]
SEED = 990_000
SURFACE = ("height", "slope x", "slope y", "curv xx", "curv xy", "curv yy", "residual", "size")


@dataclass(frozen=True)
class Grouped:
    """One view under one grouping: groups (1, G, K, 3), centres (1, G, 3), in radius units."""

    groups: torch.Tensor
    centers: torch.Tensor


def encoder(weights: str) -> PointMae:
    """The compact preset's encoder with the given weights."""
    p = load_preset("compact").points
    return load_point_encoder(weights, dim=p.dim, depth=p.depth, heads=p.heads, taps=p.taps, widths=p.widths)


def regroup(xyz: F32, index: NDArray[np.int64], rows: NDArray[np.int64], middle: F32, factor: float) -> Grouped:
    """Groups of other coordinates of the same pixels: ``index`` (G, K) and centre ``rows`` (G,) into ``xyz`` (N, 3)."""
    points = (xyz - middle) * np.float32(factor)
    groups = points[index] - points[rows][:, None]
    return Grouped(torch.from_numpy(groups)[None], torch.from_numpy(points[rows])[None])


def dent(view: View, rng: np.random.Generator, width: float, depth: float) -> tuple[F32, NDArray[np.bool_]]:
    """``clean`` of the view's valid pixels with one smooth dent away from the camera, and which points it moved by more
    than a quarter of its depth; ``width`` (sigma) and ``depth`` as shares of the part's extent."""
    points = view.clean[view.valid].copy()
    extent = float(np.linalg.norm(np.ptp(points[:, :2], axis=0)))
    at = points[rng.integers(len(points))]
    d2 = np.square(points - at).sum(1)
    offset = depth * extent * np.exp(-0.5 * d2 / (width * extent) ** 2)
    points[:, 2] += offset.astype(np.float32)
    return points, offset > 0.25 * depth * extent


def dent_signal(
    model: PointMae, views: list[View], depth: float, noise: float, width: float = 0.03, seed: int = SEED
) -> tuple[float, float]:
    """(signal over noise, AUROC of groups inside against outside) averaged over ``views``."""
    p = load_preset("compact").points
    ratios, areas = [], []
    spread = np.concatenate([features(model, grouped(v, p.groups, p.group_size)[0]) for v in views[:8]])
    mean, std = spread.mean(0), spread.std(0) + 1e-6

    def normal(f: F32) -> F32:
        return _unit((f - mean) / std)

    for i, view in enumerate(views):
        rng = np.random.default_rng((seed, i))
        clean = view.clean[view.valid]
        extent = float(np.linalg.norm(np.ptp(clean[:, :2], axis=0)))
        dented, moved = dent(view, rng, width, depth)
        _, index, rows, middle, factor = grouped(view, p.groups, p.group_size)
        inside = moved[index].mean(1) > 0.5
        if inside.sum() < 2:
            continue

        def seen(
            points: F32, rng=rng, extent=extent, index=index, rows=rows, middle=middle, factor=factor
        ) -> F32:  # bound now: the loop goes on
            noisy = points.copy()
            noisy[:, 2] += noise * extent * rng.standard_normal(len(points)).astype(np.float32)
            return normal(features(model, regroup(noisy, index, rows, middle, factor)))

        first, second, hurt = seen(clean), seen(clean), seen(dented)
        quiet, change = np.linalg.norm(first - second, axis=1), np.linalg.norm(first - hurt, axis=1)
        ratios.append(change[inside].mean() / quiet[inside].mean())
        areas.append(auroc(inside.astype(int), change))
    return float(np.mean(ratios)), float(np.mean(areas))


def posed(points: F32, rng: np.random.Generator, noise: float, keep: float = 0.97) -> tuple[F32, NDArray[np.int64]]:
    """A new picture of clean points (N, 3) in radius units: turned by up to 10 degrees, tilted by up to 5, shifted,
    with fresh noise, some pixels lost: coordinates (M, 3) and which points (M,) they are."""
    spin, tilt, axis = np.radians(rng.uniform(-10, 10)), np.radians(rng.uniform(0, 5)), rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(spin), -np.sin(spin), 0], [np.sin(spin), np.cos(spin), 0], [0, 0, 1]])
    u = np.array([np.cos(axis), np.sin(axis), 0.0])
    k = np.array([[0, 0, u[1]], [0, 0, -u[0]], [-u[1], u[0], 0]])
    lean = np.eye(3) + np.sin(tilt) * k + (1 - np.cos(tilt)) * (k @ k)
    rows = np.flatnonzero(rng.random(len(points)) < keep)
    seen = points[rows] @ (lean @ turn).T + rng.uniform(-0.02, 0.02, 3)
    seen[:, 2] += noise * rng.standard_normal(len(rows))
    return np.ascontiguousarray(seen, np.float32), rows


def detection(
    model: PointMae,
    views: list[View],
    depth: float,
    noise: float,
    width: float = 0.03,
    poses: int = 6,
    seed: int = SEED,
) -> float:
    """Mean over shapes of the AUROC of groups in a dent against all other groups (see the module's text, 3)."""
    p = load_preset("compact").points
    areas = []
    for i, view in enumerate(views):
        rng = np.random.default_rng((seed, i, 2))
        clean = view.clean[view.valid]
        extent = float(np.linalg.norm(np.ptp(clean[:, :2], axis=0)))
        middle = clean.mean(0)
        factor = 1 / float(np.linalg.norm(clean - middle, axis=1).max())

        def picture(
            points: F32,
            rng: np.random.Generator = rng,
            middle: F32 = middle,
            factor: float = factor,
            scale: float = extent,
        ) -> tuple[F32, NDArray[np.int64], NDArray[np.int64]]:
            seen, rows = posed((points - middle) * np.float32(factor), rng, noise * scale * factor)
            at = farthest_point_sample(seen, p.groups)
            index = k_nearest(seen, seen[at], p.group_size)
            groups = torch.from_numpy(seen[index] - seen[at][:, None])[None]
            return features(model, Grouped(groups, torch.from_numpy(seen[at])[None])), rows[at], rows[index]

        good = [picture(clean) for _ in range(poses)]
        spread = np.concatenate([f for f, _, _ in good])
        mean, std = spread.mean(0), spread.std(0) + 1e-6
        trees = [(cKDTree(clean[centre]), _unit((f - mean) / std)) for f, centre, _ in good]
        scores, labels = [], []
        for _ in range(2):
            dented, moved = dent(view, rng, width, depth)
            f, centre, index = picture(dented)
            expected = np.zeros_like(f)
            for tree, table in trees:
                distance, nearest = tree.query(clean[centre], k=3)
                weight = 1 / (np.square(distance) + 1e-8)
                expected += (table[nearest] * (weight / weight.sum(1, keepdims=True))[..., None]).sum(1)
            scores.append(np.linalg.norm(_unit((f - mean) / std) - _unit(expected), axis=1))
            labels.append(moved[index].mean(1) > 0.5)
        if np.concatenate(labels).sum() >= 2:
            areas.append(auroc(np.concatenate(labels).astype(int), np.concatenate(scores)))
    return float(np.mean(areas))


def _unit(f: F32) -> F32:
    return np.asarray(f / np.linalg.norm(f, axis=1, keepdims=True), np.float32)


def grouped(view: View, count: int, size: int) -> tuple[Grouped, NDArray[np.int64], NDArray[np.int64], F32, float]:
    """The clean view grouped, with what :func:`regroup` needs to group other coordinates alike."""
    points = view.clean[view.valid]
    middle = points.mean(0)
    factor = 1 / float(np.linalg.norm(points - middle, axis=1).max())
    scaled = np.ascontiguousarray((points - middle) * np.float32(factor))
    rows = farthest_point_sample(scaled, count)
    index = k_nearest(scaled, scaled[rows], size)
    return regroup(points, index, rows, middle, factor), index, rows, middle, factor


@torch.no_grad()
def features(model: PointMae, grouped: Grouped) -> F32:
    """(G, D) features of one grouped view."""
    return model(grouped.groups, grouped.centers)[0].numpy()


def linear_probe(model: PointMae, views: list[View], noise: float = 0.001, seed: int = SEED) -> F32:
    """R^2 a surface quantity (8,) of ridge regression fitted on the first half of the views, tested on the second."""
    p = load_preset("compact").points
    xs, ys = [], []
    for i, view in enumerate(views):
        rng = np.random.default_rng((seed, i, 1))
        clean, index, rows, middle, factor = grouped(view, p.groups, p.group_size)
        points = view.clean[view.valid].copy()
        noisy = points + np.array([0, 0, noise / factor], np.float32) * rng.standard_normal((len(points), 1))
        xs.append(features(model, regroup(noisy.astype(np.float32), index, rows, middle, factor)))
        ys.append(local_geometry(clean.groups[0]).numpy())
    half = len(views) // 2
    x, y = np.concatenate(xs[:half]).astype(np.float64), np.concatenate(ys[:half]).astype(np.float64)
    test_x, test_y = np.concatenate(xs[half:]), np.concatenate(ys[half:])
    mean, std, level = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    z = (x - mean) / std
    w = np.linalg.solve(z.T @ z + 1e-3 * len(z) * np.eye(z.shape[1]), z.T @ (y - level))
    error = np.square((test_x - mean) / std @ w + level - test_y).mean(0)
    return np.asarray(1 - error / test_y.var(0), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="*", default=["random", "package"])
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    views = [draw(SEED + i, noise=0.0) for i in range(args.views)]
    cases = [(0.03, 0.001), (0.02, 0.001), (0.01, 0.001), (0.01, 0.003)]
    print(f"{args.views} shapes; a dent of sigma 3 % of the extent; depth and noise as shares of the extent")
    print("weights                      | " + " | ".join(f"dent {d:.0%} noise {n:.1%}: S/N AUROC" for d, n in cases))
    models = {w: encoder(w) for w in args.weights}
    for name, model in models.items():
        cells = [dent_signal(model, views, d, n) for d, n in cases]
        print(f"{name[-28:]:28s} | " + " | ".join(f"{s:23.2f} {a:5.3f}" for s, a in cells), flush=True)
    print("detection, AUROC of groups in the dent (poses, noise and grouping vary)")
    for name, model in models.items():
        cells = [detection(model, views[:12], d, n) for d, n in cases]
        told = [f"dent {d:.0%} noise {n:.1%}: {a:5.3f}" for (d, n), a in zip(cases, cells)]
        print(f"{name[-28:]:28s} | " + " | ".join(told), flush=True)
    print("linear probe, R^2 on unseen shapes (noise 0.1 % of the radius)")
    print(" " * 28 + " | " + " | ".join(f"{s:>8s}" for s in SURFACE))
    for name, model in models.items():
        print(f"{name[-28:]:28s} | " + " | ".join(f"{r:8.3f}" for r in linear_probe(model, views)), flush=True)


if __name__ == "__main__":
    main()
