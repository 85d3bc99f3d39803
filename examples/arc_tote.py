"""Foreign objects in a tote, on real camera recordings: three views, one good frame each.

The recordings (`arc_tote`: 640 x 480 colour, depth aligned to it, 0.1 mm a unit) show a red tote from three places,
empty and with objects. Each view is a class of its own, fitted on its one empty frame and seeded variations of it, with
preset `compact-scene`. Beside the model's pixel AUROC stands the plainest thing that works with a fixed camera:
the difference to the empty frame, smoothed alike.

    python examples/arc_tote.py --work demo/arc --results demo/results/arc
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from steps import ROOT, StepFailedError, Steps  # noqa: E402

from edge_ad.evaluation.tables import Table  # noqa: E402

if TYPE_CHECKING:
    from edge_ad.data.dataset import Item
    from edge_ad.frame import F32, Bool
    from edge_ad.presets import Fusion
    from edge_ad.runtime.detector import Detector

SOURCE = ROOT.parent / "shared/data/real/arc_tote"
VIEWS = (0, 1, 2)
STEPS = 5


def stage(source: Path, recordings: Path) -> None:
    """Copy the recordings into the layout that every command reads: CLASS/{train/good,test/objects}/NAME.*."""
    for view in VIEWS:
        folder = recordings / f"tote_{view}"
        good, objects = folder / "train/good", folder / "test/objects"
        good.mkdir(parents=True)
        objects.mkdir(parents=True)
        shutil.copy(source / f"camera_view{view}.json", folder / "camera.json")
        shutil.copy(source / f"view{view}_roi.png", folder / "roi.png")
        for kind in ("color", "depth"):
            shutil.copy(source / f"view{view}_empty.{kind}.png", good / f"empty.{kind}.png")
            shutil.copy(source / f"view{view}_objects.{kind}.png", objects / f"objects.{kind}.png")
        shutil.copy(source / f"view{view}_objects.mask.png", objects / "objects.mask.png")


def run(
    steps: Steps,
    source: Path,
    work: Path,
    results: Path,
    *,
    augment: int = 12,
    min_steps: int = 200,
    variations: int = 30,
    rate: float = 0.05,
) -> dict[str, Any]:
    """All steps on the real recordings; the measured table as JSON.

    augment : variations of each empty frame to fit on. variations : more of them, for thresholds at the false-reject
    rate ``rate``.
    """
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(results, ignore_errors=True)
    recordings, model, bundle = work / "recordings", work / "model", work / "bundle"
    stage(source, recordings)
    steps.edge_ad(
        "arc-fit", "real recordings: fit on the empty totes", "fit", "--data", recordings, "--out", model,
        "--preset", "compact-scene", "--augment", augment, "--min-steps", min_steps,
    )  # fmt: skip
    steps.tell("arc-fit")
    export = steps.edge_ad(
        "arc-export", "real recordings: export", "export", model, bundle, "--data", recordings, "--golden", 2
    )
    steps.tell("arc-export", (), f"      worst difference from the torch reference: {export['map_difference']:.1e}")
    steps.edge_ad(
        "arc-thresholds", "real recordings: thresholds", "calibrate", "thresholds", bundle, "--data", recordings,
        "--split", "train", "--augment", variations, "--false-reject-rate", rate,
    )  # fmt: skip
    steps.tell("arc-thresholds", (), f"      note: {variations_note(variations)}")
    steps.edge_ad(
        "arc-run", "real recordings: run on the views with objects", "run", bundle,
        "--camera", f"folder:{recordings}?split=test", "--output", f"folder:{results}",
    )  # fmt: skip
    steps.tell("arc-run")
    steps.begin("real recordings: measure", "against the objects drawn by hand, on the sample grid")
    document = measure(bundle, recordings, results)
    document["note"] = variations_note(variations)
    steps.keep("arc", document)
    steps.tell("arc", [table(document)])
    return document


def variations_note(variations: int) -> str:
    """What the thresholds of this example are worth."""
    return (
        f"the thresholds stand on each view's one empty frame and {variations} seeded variations of it, not on "
        f"{variations + 1} recordings: they promise nothing about frames that the variations do not resemble"
    )


def measure(bundle: Path, recordings: Path, pictures: Path | None = None) -> dict[str, Any]:
    """Pixel AUROC of the map and of the frame difference, and what became of the pixels without depth, a view."""
    from edge_ad.data.dataset import open_dataset
    from edge_ad.runtime import load_detector

    detector = load_detector(bundle)
    dataset = open_dataset(recordings)
    views = []
    for name in dataset.classes:
        empty, filled = dataset.select(name, "train")[0], dataset.select(name, "test")[0]
        views.append(measure_view(detector, name, empty, filled, pictures))
    return {"views": views, "conditions": conditions(detector), "note": ""}


def conditions(detector: Detector) -> str:
    """What the figures were measured with."""
    f = detector.preset.fusion
    return (
        f"preset {detector.preset.name}, fitted on one empty frame a view and variations of it; onnxruntime fp32; "
        f"pixel AUROC over the pixels inside the region that have depth, {detector.preset.geometry.size} x "
        f"{detector.preset.geometry.size} sample grid; differences smoothed as the map is (Gaussian, sigma {f.sigma:g})"
    )


def measure_view(detector: Detector, name: str, empty: Item, filled: Item, pictures: Path | None) -> dict[str, Any]:
    """One row. Sample grid for AUROC, camera's grid for the pixels without depth."""
    import cv2

    from edge_ad.evaluation.metrics import auroc
    from edge_ad.runtime.preprocess import mask_to_sample, resize_colour

    before, frame, truth = empty.frame(), filled.frame(), filled.ground_truth()
    result = detector(frame)
    if truth is None or frame.depth is None or result.sample_map is None or result.lost is None:
        raise StepFailedError(f"{filled.name}: no ground truth, no depth or no map ({'; '.join(result.reasons)})")
    sample, clean = detector.preprocess(frame, name).samples[0], detector.preprocess(before, name).samples[0]
    valid, drawn = sample.valid, mask_to_sample(truth, sample.transform)
    smoothing = detector.preset.fusion
    near, far = (resize_colour(f.colour, sample.transform).astype(np.float32) for f in (frame, before))
    both = valid & clean.valid
    difference = np.where(both, np.abs(sample.xyz[..., 2] - clean.xyz[..., 2]), 0).astype(np.float32)

    def pixel_auroc(values: F32) -> float:
        return float(auroc(drawn[valid], values[valid]))

    inside = detector.preprocess.scenes[name].roi
    object_pixels = truth if inside is None else truth & inside
    dark = object_pixels & (frame.depth == 0)
    expected = detector.preprocess.scenes[name].expected_depth
    judged = dark if expected is None else dark & expected
    count, parts = cv2.connectedComponents(object_pixels.astype(np.uint8), connectivity=8)
    with_lost = sum(bool((result.lost & (parts == k)).any()) for k in range(1, count))
    if pictures is not None:
        _pictures(pictures, name, frame.colour, before.colour, result.map, result.threshold)
    return {
        "view": name,
        "pixel_auroc": pixel_auroc(result.sample_map),
        "depth_difference": pixel_auroc(_smoothed(difference, smoothing, valid)),
        "colour_difference": pixel_auroc(_smoothed(np.abs(near - far).mean(axis=2), smoothing, valid)),
        "object_share": float(drawn[valid].mean()),
        "no_depth_share": float(dark.sum() / object_pixels.sum()),
        "no_depth_flagged": float((dark & result.lost).sum() / max(1, dark.sum())),
        "no_depth_expected": float(judged.sum() / max(1, dark.sum())),
        "lost_on_objects": float((result.lost & object_pixels).sum() / max(1, result.lost.sum())),
        "drawn_objects": count - 1,
        "objects_with_lost_depth": with_lost,
        "decision": result.decision,
        "score": result.score,
        "threshold": result.threshold,
        "lost_share": result.lost_share,
        "lost_regions": sum(r.kind == "lost-depth" for r in result.regions),
        "reasons": list(result.reasons),
        "empty_decision": detector(before).decision,
        "overlay": f"overlay/{name}_test_objects_objects.png",
    }


def _smoothed(values: F32, fusion: Fusion, valid: Bool) -> F32:
    from edge_ad.runtime.maps import smooth

    return smooth(np.where(valid, values, 0).astype(np.float32), fusion, valid)


def _pictures(folder: Path, name: str, colour: Any, empty: Any, anomaly: Any, threshold: float) -> None:
    """The views as the camera saw them, and the map as heat over its threshold, for the page."""
    from edge_ad.files import write_image
    from edge_ad.outputs.overlay import HEAT_TO, heat_colours

    where = folder / "views"
    where.mkdir(parents=True, exist_ok=True)
    write_image(where / f"{name}_objects.png", colour)
    write_image(where / f"{name}_empty.png", empty)
    heat = heat_colours(np.clip(anomaly / threshold, 0, HEAT_TO))
    write_image(where / f"{name}_heat.png", np.where((anomaly > 0)[..., None], heat, 18).astype(np.uint8))


def table(document: dict[str, Any]) -> Table:
    """The one table of this example."""
    rows = [
        (
            v["view"],
            f"{v['pixel_auroc']:.3f}",
            f"{v['depth_difference']:.3f}",
            f"{v['colour_difference']:.3f}",
            f"{v['no_depth_share']:.1%}",
            f"{v['no_depth_flagged']:.1%}",
            f"{v['objects_with_lost_depth']} of {v['drawn_objects']}",
            f"{v['lost_share']:.1%}",
            v["decision"],
            v["empty_decision"],
        )
        for v in document["views"]
    ]
    columns = (
        "view", "pixel AUROC", "depth diff.", "colour diff.", "object without depth", "of it flagged lost",
        "objects with lost depth", "lost in region", "with objects", "empty",
    )  # fmt: skip
    notes = (document["conditions"], document["note"])
    return Table("Real recordings: objects in a tote", columns, tuple(rows), notes=notes)


def main() -> int:
    """Run the example on its own."""
    parser = argparse.ArgumentParser(description="Foreign objects in a tote, on real camera recordings.")
    parser.add_argument("--source", type=Path, default=SOURCE, help="folder arc_tote")
    parser.add_argument("--work", type=Path, default=ROOT / "demo/arc")
    parser.add_argument("--results", type=Path, default=ROOT / "demo/results/arc")
    parser.add_argument("--augment", type=int, default=12, help="variations of each empty frame to fit on")
    parser.add_argument("--variations", type=int, default=30, help="variations of each empty frame for the thresholds")
    parser.add_argument("--min-steps", type=int, default=200, help="steps of the fit")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    if not args.source.is_dir():
        print(f"error: no recordings in {args.source}; name them with --source", file=sys.stderr)
        return 1
    steps = Steps(args.work.parent / "json", STEPS)
    try:
        document = run(
            steps, args.source, args.work, args.results,
            augment=args.augment, min_steps=args.min_steps, variations=args.variations,
        )  # fmt: skip
    except StepFailedError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    if args.json:
        args.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
