"""The paper preset with random weights of true size, a cloud to feed it, and the count of its multiplications."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).parent))  # also for `python -m benchmarks.NAME`
from common import RESULTS, keep  # noqa: E402

from edge_ad.evaluation.tables import Table  # noqa: E402
from edge_ad.frame import F32, Sample, SampleTransform  # noqa: E402
from edge_ad.presets import Preset, load_preset  # noqa: E402


def paper_preset() -> Preset:
    """``paper``, both encoders with random weights. Sizes are what costs time, not what the weights have learnt."""
    preset = load_preset("paper")
    return replace(
        preset,
        rgb=replace(preset.rgb, checkpoint="random"),
        points=replace(preset.points, checkpoint="random"),
    )


def literal_detector(preset: Preset, classes: int = 10) -> Any:
    """The torch reference (:class:`edge_ad.models.detector.ReferenceDetector`) with random mappers and anchors."""
    import torch

    from edge_ad.models.build import assemble
    from edge_ad.models.detector import ReferenceDetector

    torch.manual_seed(115)
    detector = ReferenceDetector(preset, *assemble(preset), classes=classes).eval().requires_grad_(False)
    detector.anchors.normal_()
    return detector


def part_sample(valid: int, size: int = 224, seed: int = 0) -> Sample:
    """A wavy disc of ``valid`` pixels, half a metre away, with the noise of a depth camera (0.2 mm)."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:size, :size].astype(np.float32) - np.float32(size / 2)
    z = 0.5 + 0.03 * np.sin(u / 30) * np.cos(v / 25) + rng.normal(scale=2e-4, size=u.shape)
    order = np.argsort(np.hypot(u, v).ravel(), kind="stable")
    mask = np.zeros(size * size, bool)
    mask[order[:valid]] = True
    mask = mask.reshape(size, size)
    xyz = np.where(mask[..., None], np.stack([u / 300 * z, v / 300 * z, z], axis=-1), 0).astype(np.float32)
    rgb = rng.normal(size=(3, size, size)).astype(np.float32)
    return Sample(rgb, xyz, mask, np.zeros_like(mask), SampleTransform(0, 0, size, size, size, size))


def gflop(graph: bytes) -> float:
    """Multiplications and additions of a graph's matrix products and convolutions, in 1e9; nothing else is counted."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph))
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*model.graph.value_info, *model.graph.input, *model.graph.output]
    }
    shapes |= {t.name: list(t.dims) for t in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += 2 * int(np.prod(shapes[node.output[0]])) * int(np.prod(shapes[node.input[1]][1:]))
        elif node.op_type in ("MatMul", "Gemm"):
            inner = shapes[node.input[0]][-1]
            total += 2 * int(np.prod(shapes[node.output[0]])) * inner
    return total / 1e9


def measure(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median processor seconds of one call, after one that is not counted; and its result.

    Everything here runs on one thread, so this is the time on a core that nobody else uses.
    """
    result = call()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), result


def sgemm_rate(repeats: int = 7) -> float:
    """Measured rate of the float32 matrix product of NumPy's BLAS, 1e9 operations a second; 2048 x 2048 x 2048."""
    n = 2048
    a = np.random.default_rng(0).random((n, n), dtype=np.float32)
    out: F32 = np.empty_like(a)
    seconds, _ = measure(lambda: np.dot(a, a, out=out), repeats)
    return 2 * n**3 / seconds / 1e9


def output(name: str, args: argparse.Namespace, document: dict[str, Any], tables: Sequence[Table]) -> None:
    """Print the tables; with ``--write`` keep them as ``results/NAME.json`` and ``.md``."""
    for table in tables:
        print("\n" + table.to_text())
    if not args.write:
        print("\nnot written (pass --write)")
        return
    keep(getattr(args, "results", None) or RESULTS, name, args, {"result": document}, tables)
