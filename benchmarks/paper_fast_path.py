"""The exact fast path beside the literal reference, on the paper's sizes: stage by stage, one core, float32.

Both run on one thread. The reference scores all 50,176 pixels, as the paper does: once as one array a step, and once in
blocks of pixels that stay in the cache; the faster one counts. The fast path scores the valid pixels alone. Times are
processor seconds of one thread, medians. The floor is the counted matrix products over the float32 matrix-product
rate that is measured in the same run. Weights are random: their sizes are the paper's.

    .venv/bin/python benchmarks/paper_fast_path.py --repeats 5 --write
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from paper_model import gflop, literal_detector, measure, output, paper_preset, part_sample, sgemm_rate

from edge_ad.bundle import TensorSpec
from edge_ad.evaluation.tables import Table
from edge_ad.export.bundle import trace_graphs
from edge_ad.export.graphs import score_arrays
from edge_ad.export.reference import spread
from edge_ad.models.detector import ReferenceDetector
from edge_ad.models.distance import distance
from edge_ad.models.interpolate import bilinear, three_nearest
from edge_ad.runtime.jit import one_blas_thread
from edge_ad.runtime.maps import smooth
from edge_ad.runtime.point_input import PointInput, prepare_points
from edge_ad.runtime.scoring import fuse, score_pixels
from edge_ad.runtime.scoring_fast import STEP, FastScore

# CFM's own classes on one core of such a machine (published nowhere; the project's own measurement, 2026): stage, CPU
# seconds at 18,000 and 50,176 points, GFLOP.
PEER = (
    ("DINO ViT-B/8", 1.22, 1.21, 156.0),
    ("FPS, kNN", 2.91, 11.46, 0.0),
    ("Point-MAE", 1.38, 1.44, 95.0),
    ("interpolation", 3.2, 6.6, 1.0),
    ("mappers", 4.25, 4.30, 555.0),
    ("distance", 2.3, 2.3, 1.0),
)
PIXELS = 224 * 224


def literal_terms(detector: ReferenceDetector, tokens: Any, at: Any, valid: torch.Tensor, block: int) -> dict[str, Any]:
    """METHOD sections 2, 3 and 6 for every pixel, every layer as written; in blocks of pixels where ``block`` > 0."""
    if not block:
        return detector.terms(*tokens, *at, valid, 0)
    m, (rgb_tokens, point_tokens), (index, weight) = detector.mappers, tokens, at
    rgb = bilinear(rgb_tokens, detector.preset.geometry.size)
    found: dict[str, list[torch.Tensor]] = {"rgb": [], "3d": [], "text_rgb": [], "text_3d": []}
    anchor = detector.anchors[0]
    assert m.rgb_to_text is not None and m.points_to_text is not None
    for start in range(0, len(rgb), block):
        part = slice(start, start + block)
        x, y = rgb[part].contiguous(), three_nearest(point_tokens, index[part], weight[part])
        found["rgb"].append(distance(x, m.points_to_rgb(y)))
        found["3d"].append(distance(y, m.rgb_to_3d(x)))
        found["text_rgb"].append(distance(anchor, m.rgb_to_text(x)))
        found["text_3d"].append(distance(anchor, m.points_to_text(y)))
    return {k: torch.where(valid, torch.cat(v).reshape(valid.shape), 0.0) for k, v in found.items()}


def literal_gflop(detector: ReferenceDetector) -> float:
    """Matrix products of the literal scoring of all pixels."""
    layers = [mod for mod in detector.mappers.modules() if isinstance(mod, torch.nn.Linear)]
    return PIXELS * sum(2 * layer.in_features * layer.out_features for layer in layers) / 1e9


def literal_encoder_gflop(detector: ReferenceDetector, fast: dict[str, float]) -> dict[str, float]:
    """Both encoders as written: the exported ones, with the mini-PointNet's products that the export leaves out."""
    net, p = detector.point_encoder.encoder, detector.preset.points
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv1d)]
    hidden, out, second = p.widths
    literal = sum(m.in_channels * m.out_channels for m in convolutions)
    exported = 3 * hidden + hidden * out + hidden * second + second * p.dim + out * second / p.group_size
    left_out = 2 * p.groups * p.group_size * (literal - exported) / 1e9
    return {"rgb encoder": fast["rgb"], "point encoder": fast["points"] + left_out}


def fast_gflop(arrays: dict[str, Any], pixels: int) -> float:
    """Matrix products of the compiled scoring stage: triangular layers, in the blocks that it computes."""
    total = 0
    for term in ("rgb", "text_rgb", "text_3d"):
        size, width = arrays[f"{term}.weight"].shape
        total += sum(2 * min(STEP, size - o) * max(0, width - o) for o in range(0, size, STEP))
    return pixels * total / 1e9


def session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class FastPath:
    """The runtime's stages on the exported graphs."""

    def __init__(self, detector: ReferenceDetector) -> None:
        self.preset = detector.preset
        graphs = trace_graphs(detector)
        self.gflop = {name: gflop(g.onnx) for name, g in graphs.items() if name != "score"}
        self.sessions = {name: session(g.onnx) for name, g in graphs.items() if name != "score"}
        self.arrays = score_arrays(detector)
        specs = tuple(TensorSpec(n, ("rows",), "float32") for n in ("rgb", "3d", "text_rgb", "text_3d"))
        self.score = FastScore(self.arrays, "score", graphs["score"].inputs, specs, threads=1)

    def tables(self, rgb: Any, points: Any) -> list[Any]:
        return self.sessions["tokens"].run(None, {"rgb_tokens": rgb, "point_tokens": points})

    def terms(self, tables: list[Any], valid: Any, points: PointInput) -> dict[str, Any]:
        return score_pixels(self.score, tables[0], tables[1], valid, points, 0)

    def map(self, terms: dict[str, Any], valid: Any) -> Any:
        f = self.preset.fusion
        flat = np.zeros(valid.shape, np.float32)
        flat[valid] = fuse(terms, f, (1.0, 1.0, 1.0))
        return smooth(flat, f, valid)


def run(detector: ReferenceDetector, fast: FastPath, valid: int, repeats: int) -> dict[str, Any]:
    """Both forms on one part of ``valid`` pixels."""
    sample, preset = part_sample(valid), detector.preset
    seconds: dict[str, dict[str, float]] = {"literal": {}, "fast": {}}
    t, f = seconds["literal"], seconds["fast"]
    f["points"], points = measure(lambda: prepare_points(sample, preset.points, 1.0), repeats)
    image, groups, centers = sample.rgb[None], points.groups[None], points.centers[None]
    f["rgb encoder"], rgb = measure(lambda: fast.sessions["rgb"].run(None, {"image": image})[0], repeats)
    f["point encoder"], mae = measure(
        lambda: fast.sessions["points"].run(None, {"groups": groups, "centers": centers})[0], repeats
    )
    f["tokens"], tables = measure(lambda: fast.tables(rgb, mae), repeats)
    f["score"], terms = measure(lambda: fast.terms(tables, sample.valid, points), repeats)
    f["map"], fast_map = measure(lambda: fast.map(terms, sample.valid), repeats)

    few = max(1, repeats // 2)
    t["points"] = f["points"]  # the reference's point operations are this program's
    mask = torch.from_numpy(sample.valid)
    at = spread(points, sample.valid)
    t["rgb encoder"], tokens = measure(lambda: detector.rgb_encoder(torch.from_numpy(image))[0], few)
    t["point encoder"], group_tokens = measure(
        lambda: detector.point_encoder(torch.from_numpy(groups), torch.from_numpy(centers))[0], few
    )
    pair = (
        tokens @ detector.rgb_weight.T + detector.rgb_offset,
        group_tokens @ detector.point_weight.T + detector.point_offset,
    )
    forms = {block: measure(lambda b=block: literal_terms(detector, pair, at, mask, b), few) for block in (0, 2048)}
    block = min(forms, key=lambda b: forms[b][0])
    t["score"], literal = forms[block]
    t["map"], literal_map = measure(lambda: detector.anomaly_map(literal, mask).numpy(), few)
    worst = {k: float(np.abs(terms[k] - literal[k].numpy()[sample.valid]).max() / literal[k].max()) for k in terms}
    return {
        "valid": valid,
        "seconds": seconds,
        "literal_scoring_s": {"whole arrays": forms[0][0], "blocks of 2048 pixels": forms[2048][0]},
        "largest_difference": worst,
        "map_difference": float(np.abs(fast_map - literal_map).max() / literal_map.max()),
    }


AFTER = ("tokens", "score", "map")


def table(result: dict[str, Any], counts: dict[str, float], literal_counts: dict[str, float], rate: float) -> Table:
    t, f = result["seconds"]["literal"], result["seconds"]["fast"]
    rows = []
    for name in ("points", "rgb encoder", "point encoder", "tokens", "score", "map"):
        floor = counts.get(name, 0.0) / rate
        rows.append((
            name,
            f"{1e3 * t[name]:.0f}" if name in t else "-",
            f"{literal_counts.get(name, 0.0):.0f}" if name in literal_counts else "-",
            f"{1e3 * f[name]:.0f}",
            f"{counts[name]:.1f}" if name in counts else "-",
            f"{1e3 * floor:.0f}" if name in counts else "-",
            f"{f[name] / floor:.2f}" if floor else "-",
        ))  # fmt: skip
    total, floor = sum(f.values()), sum(counts.values()) / rate
    after = [sum(side.get(n, 0.0) for n in AFTER) for side in (t, f)]
    foot = (
        ("all", f"{1e3 * sum(t.values()):.0f}", f"{sum(literal_counts.values()):.0f}", f"{1e3 * total:.0f}",
         f"{sum(counts.values()):.1f}", f"{1e3 * floor:.0f}", f"{total / floor:.2f}"),
    )  # fmt: skip
    worst = max(result["largest_difference"].values())
    forms = result["literal_scoring_s"]
    return Table(
        f"{result['valid']} valid pixels, one core, float32",
        ("stage", "literal ms", "GFLOP", "fast ms", "GFLOP", "floor ms", "fast / floor"),
        tuple(rows),
        foot,
        (
            f"after the encoders: {1e3 * after[0]:.0f} ms literal, {1e3 * after[1]:.0f} ms fast: "
            f"{after[0] / after[1]:.1f} x; whole frame {sum(t.values()) / total:.1f} x",
            f"literal scoring: {forms['whole arrays']:.2f} s in whole arrays, "
            f"{forms['blocks of 2048 pixels']:.2f} s in blocks",
            f"largest difference of a term {worst:.1e}, of the map {result['map_difference']:.1e}, of its maximum",
        ),
    )


def peer_table(results: list[dict[str, Any]]) -> Table:
    """The peer's published code on such a machine (measured earlier), beside this run."""
    rows = []
    ours = {
        "DINO ViT-B/8": ("rgb encoder",),
        "FPS, kNN": ("points",),
        "Point-MAE": ("point encoder",),
        "interpolation": (),
        "mappers": ("tokens", "score"),
        "distance": ("map",),
    }
    near = [min(results, key=lambda r: abs(r["valid"] - n))["seconds"]["fast"] for n in (18_000, PIXELS)]
    for name, small, large, _ in PEER:
        mine = [sum(s[stage] for stage in ours[name]) for s in near]
        cells = [f"{v:.2f}" if ours[name] else "in mappers" for v in mine]
        rows.append((name, f"{small:.2f}", f"{large:.2f}", *cells))
    totals = [sum(row[i] for row in PEER) for i in (1, 2)]
    fast = [sum(s.values()) for s in near]
    foot = (("all", f"{totals[0]:.1f}", f"{totals[1]:.1f}", f"{fast[0]:.2f}", f"{fast[1]:.2f}"),)
    share = ", ".join(f"{f / t:.2f}" for f, t in zip(fast, totals, strict=True))
    return Table(
        "CPU seconds a frame beside CFM's own code (no text, three-layer mappers), measured earlier on such a core",
        ("stage", "CFM 18k", "CFM 50k", "fast 18k", "fast 50k"),
        tuple(rows),
        foot,
        (f"share of its total: {share}",),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--valid", type=int, nargs="+", default=[18_000, PIXELS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    one_blas_thread()
    with torch.no_grad():
        detector = literal_detector(paper_preset())
        fast = FastPath(detector)
        rates = [sgemm_rate()]
        results = [run(detector, fast, n, args.repeats) for n in args.valid]
        rates.append(sgemm_rate())
    rate = float(np.mean(rates))
    encoders = {"rgb encoder": fast.gflop["rgb"], "point encoder": fast.gflop["points"]}
    tables = []
    for result in results:
        counts = encoders | {"tokens": fast.gflop["tokens"], "score": fast_gflop(fast.arrays, result["valid"])}
        literal = literal_encoder_gflop(detector, fast.gflop) | {"score": literal_gflop(detector)}
        result["gflop"] = {"fast": counts, "literal": literal}
        tables.append(table(result, counts, literal, rate))
    document = {"sgemm_gflop_s": rates, "results": results, "peer": PEER}
    tables.append(peer_table(results))
    print(f"float32 matrix product: {rates[0]:.0f} before, {rates[1]:.0f} after, GFLOP/s on one core")
    output("paper_fast_path", args, document, tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
