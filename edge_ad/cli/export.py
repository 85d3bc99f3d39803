"""``edge-ad export``: a fitted model becomes a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log


@click.command(name="export")
@click.argument("model", type=click.Path(path_type=Path))
@options.bundle
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Good parts for the golden frames.")
@options.layout
@options.class_name
@click.option("--golden", default=4, show_default=True, type=click.IntRange(1, 32), help="Good golden frames.")
@options.checkpoints
@click.option("--force", is_flag=True, help="Replace BUNDLE if it is one.")
@cli_errors
def command(
    model: Path,
    bundle: Path,
    data: Path,
    layout: str,
    class_name: str | None,
    golden: int,
    checkpoints: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Turn the MODEL directory that `fit` wrote into a BUNDLE for the box.

    Traces both encoders and the mappers to ONNX, with the text anchors as constants, and keeps the bundle only if its
    float32 answer equals the torch reference's on the golden frames (half of them with a planted defect).

    \b
    Example:
      edge-ad export demo/model demo/bundle --data demo/parts
    """
    from edge_ad.bundle.manifest import MANIFEST
    from edge_ad.errors import EdgeAdError, missing_package

    try:
        from edge_ad.data.dataset import open_dataset
        from edge_ad.export.bundle import TOLERANCE, export_bundle
        from edge_ad.training.model_dir import load_model, load_variants
    except ModuleNotFoundError as e:
        raise missing_package(str(e.name), "export") from None
    if bundle.exists() and not force:
        raise EdgeAdError(f"{bundle} exists already", "a new folder", "name another one or pass --force")
    if bundle.exists() and not (bundle / MANIFEST).is_file():
        raise EdgeAdError(f"{bundle} exists and is not a bundle", "a bundle to replace", "name another folder")
    loaded = load_model(model, checkpoints)
    dataset = open_dataset(data, layout, class_name)
    if class_name is None and len(loaded.classes) == 1 and not set(dataset.classes) & set(loaded.class_names):
        dataset = open_dataset(data, layout, loaded.class_names[0])  # a flat folder does not know its class's name
    variants = load_variants(model, checkpoints)
    report = export_bundle(loaded, bundle, dataset, golden=golden, variants=variants, replace=force, say=log)
    if as_json:
        echo_json(
            {
                "bundle": str(bundle),
                "graphs": {
                    n: {"bytes": len(g.onnx), "nodes": g.nodes, "parameters": g.parameters}
                    for n, g in report.graphs.items()
                },
                "map_difference": report.map_difference,
                "score_difference": report.score_difference,
                "tolerance": TOLERANCE,
                "variants": list(report.bundle.variants),
            }
        )
        return
    click.echo(f"{'graph':8} {'nodes':>6} {'parameters':>11} {'MB':>7}")
    for name, graph in report.graphs.items():
        click.echo(f"{name:8} {graph.nodes:6d} {graph.parameters:11d} {len(graph.onnx) / 1e6:7.2f}")
    click.echo(
        f"worst difference from the torch reference: map {report.map_difference:.1e}, "
        f"score {report.score_difference:.1e} (allowed {TOLERANCE:.0e}, relative)"
    )
    click.echo(f"wrote {bundle}; next: edge-ad calibrate thresholds {bundle} --data {data}")
