"""``edge-ad evaluate``: a bundle or a model on a test split."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli import options
from edge_ad.cli.calibrate_precision import rounding_twin_of
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.bundle import Bundle
    from edge_ad.data.dataset import Dataset
    from edge_ad.evaluation.report import Record
    from edge_ad.evaluation.runner import ScoredPart


@click.command(name="evaluate")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Data set with a test split.")
@options.layout
@click.option(
    "--class", "class_name", default=None, help="Inspect every part as this class, or auto. Default: its label."
)
@click.option("--classes", default="", help="Comma-separated classes to evaluate; all by default.")
@click.option("--aupro-thresholds", default=0, type=click.IntRange(min=0), help="0: exact; 99 as in published tables.")
@click.option("--sheet", default=None, type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
@click.option("--sheet-rows", default=24, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--baseline/--no-baseline", default=True, show_default=True, help="Print the per-pixel z-score beside it."
)
@click.option("--ablation", is_flag=True, help="Also score by colour alone and by depth alone.")
@click.option("--limit", default=0, type=click.IntRange(min=0), help="At most so many test parts a class and defect.")
@options.point
@options.jobs
@cli_errors
def command(
    target: Path,
    data: Path,
    layout: str,
    class_name: str | None,
    classes: str,
    aupro_thresholds: int,
    sheet: Path | None,
    sheet_rows: int,
    baseline: bool,
    ablation: bool,
    limit: int,
    backend: str,
    precision: str,
    variant: str,
    score_stride: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Measure TARGET (a bundle, or a model directory) on the test split of a data set.

    I-AUROC, P-AUROC, AUPRO@30 % and AUPRO@1 % a class and in the mean; recall by size of defect; beside it what a plain
    per-pixel z-score of colour and height reaches. A model directory is exported to a temporary bundle first (this
    needs the extra `export`), so that what is measured is what a box runs; its thresholds are not set.

    \b
    Example:
      edge-ad evaluate demo/bundle --data demo/parts --sheet demo/sheet.png
    """
    from edge_ad.data.dataset import open_dataset
    from edge_ad.errors import EdgeAdError
    from edge_ad.evaluation.ablation import ablation_by_modality, ablation_text, single_modality
    from edge_ad.evaluation.choice import spread, test_items
    from edge_ad.evaluation.recall import recall_report
    from edge_ad.evaluation.report import evaluate_scores
    from edge_ad.evaluation.runner import defect_modalities, score_items, to_record

    dataset = open_dataset(data, layout)
    stack = ExitStack()
    click.get_current_context().call_on_close(stack.close)
    bundle = _open_target(target, dataset, stack).as_variant(variant, score_stride)
    wanted = [c.strip() for c in classes.split(",") if c.strip()] or list(dataset.classes)
    items = test_items(dataset, wanted, bundle.class_names if class_name is None else None, limit)
    kinds = defect_modalities(dataset)
    shown = spread(items, sheet_rows) if sheet else set()
    records: list[Record] = []
    rows: list[ScoredPart] = []
    broken: list[str] = []
    scored_with, scored_in = bundle, precision
    if precision == "fp16" and backend == "onnxruntime":  # which hides FP16's overflows and rounding
        scored_with, scored_in = stack.enter_context(rounding_twin_of(bundle)), "fp32"
    parts = score_items(
        scored_with,
        items,
        backend=backend,
        precision=scored_in,
        class_name=class_name,
        pictures=sheet is not None,
        every_term=ablation,
        jobs=jobs,
        track=progress,
    )
    for part in parts:
        if part.error:
            broken.append(f"{part.item.name}: {part.error}")
            continue
        records.append(to_record(part, kinds, single_modality(part, bundle.preset.fusion) if ablation else None))
        if part.item.name in shown:
            rows.append(part)
    for line in broken:
        log(f"warning: not scored: {line}")
    if not records:
        raise EdgeAdError(f"none of the {len(items)} test parts could be scored", "at least one of them")
    report = evaluate_scores(records, aupro_thresholds or None)
    limits = {c: t.value for c in bundle.class_names if (t := bundle.threshold(c, precision)) is not None}
    complete = all(r.class_name in limits for r in records)
    has_both = {r.is_defective for r in records} == {True, False}
    recall = recall_report(records, limits if complete else None) if has_both else None
    plain = _baseline(dataset, wanted) if baseline else {}
    if sheet is not None:
        _write_sheet(sheet, rows, limits)
        log(f"wrote {sheet}")
    if as_json:
        document: dict[str, Any] = {"target": str(target), "data": str(data), **report.to_json(), "not_scored": broken}
        document["recall"] = None if recall is None else recall.to_json()
        document["baseline_i_auroc"] = plain
        if ablation:
            document["ablation_i_auroc"] = ablation_by_modality(records)
        echo_json(document)
        return
    click.echo(report.to_text())
    if plain:
        told = ", ".join(f"{c} {v:.3f}" for c, v in plain.items())
        click.echo(
            f"\nper-pixel z-score of colour and height, I-AUROC: {told}; mean {sum(plain.values()) / len(plain):.3f}"
        )
    if ablation:
        click.echo("\n" + ablation_text(ablation_by_modality(records)))
    if recall is not None:
        click.echo("\n" + recall.table().to_text())


def _open_target(target: Path, dataset: Dataset, stack: ExitStack) -> Bundle:
    """The bundle, or for a model directory its export in a temporary folder that goes away with ``stack``."""
    from edge_ad.bundle import Bundle
    from edge_ad.bundle.manifest import MANIFEST
    from edge_ad.errors import EdgeAdError, missing_package

    if not target.exists():
        raise EdgeAdError(f"{target} does not exist", "a bundle or a model directory")
    is_model = (target / "model.json").is_file()
    if target.is_dir() and not is_model and not (target / MANIFEST).is_file():
        raise EdgeAdError(
            f"{target} is neither a bundle (no {MANIFEST}) nor a model directory (no model.json)",
            "what edge-ad export or edge-ad fit wrote",
        )
    if not is_model:
        return Bundle.open(target)
    import tempfile

    try:
        from edge_ad.export.bundle import export_bundle
        from edge_ad.training.model_dir import load_model
    except ModuleNotFoundError as e:
        raise missing_package(str(e.name), "export") from None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-ad-")))
    return export_bundle(load_model(target), folder / target.resolve().name, dataset, golden=1, say=log).bundle


def _baseline(dataset: Dataset, wanted: list[str]) -> dict[str, float]:
    from edge_ad.errors import EdgeAdError
    from edge_ad.evaluation.baseline import image_auroc

    try:
        return {k: v for k, v in image_auroc(dataset).items() if k in wanted}
    except EdgeAdError as e:
        log(f"warning: no per-pixel baseline: {e}")
        return {}


def _write_sheet(path: Path, parts: list[ScoredPart], limits: dict[str, float]) -> None:
    import numpy as np

    from edge_ad.evaluation.contact_sheet import SheetRow, contact_sheet

    rows = []
    for part in parts:
        assert part.colour is not None and part.depth is not None
        limit = limits.get(part.class_name)
        over = part.score > (limit if limit is not None else np.inf)
        rows.append(
            SheetRow(
                name=part.item.name,
                colour=part.colour,
                depth=part.depth,
                map=part.map,
                mask=part.map > (limit if limit is not None else np.inf),
                score=part.score,
                decision="anomalous" if over else "normal",
                gt=part.gt,
                valid=part.valid,
                threshold=limit,
                note=f"{part.class_name}: {part.item.defect}",
            )
        )
    contact_sheet(rows, path, title="colour, depth, ground truth, anomaly map, mask")
