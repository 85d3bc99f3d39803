"""``edge-ad add-class``: one class more for a fitted model and its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.bundle import Bundle


@click.command(name="add-class")
@click.argument("model", type=click.Path(path_type=Path))
@options.bundle
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Good parts of the new class.")
@click.option("--class", "name", required=True, help="The new class's name.")
@options.layout
@click.option("--steps", default=400, show_default=True, type=click.IntRange(min=1), help="Steps of training.")
@click.option("--cache", default=None, type=click.Path(path_type=Path), help="For features; default MODEL.cache.")
@options.checkpoints
@click.option(
    "--keep-limits", is_flag=True, help="Keep the old classes' thresholds, though their maps change a little."
)
@options.feature_jobs
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Threads for training; 0: one a core.")
@cli_errors
def command(
    model: Path,
    bundle: Path,
    data: Path,
    name: str,
    layout: str,
    steps: int,
    cache: Path | None,
    checkpoints: Path | None,
    keep_limits: bool,
    jobs: int,
    threads: int,
    as_json: bool,
) -> None:
    """Fit one more class and rebuild the token and score graphs and engines; the encoders' stay.

    The old classes are rehearsed from features that `fit` kept in MODEL. MODEL and BUNDLE are replaced, each whole or
    not at all. The thresholds of all classes have to be set again, because the mappers change a little.

    \b
    Example:
      edge-ad add-class demo/model demo/bundle --data new/parts --class washer
    """
    from edge_ad.errors import missing_package

    try:
        from edge_ad.export import add_class as bundles
        from edge_ad.training.add_class import AddOptions, add_class, write_added
        from edge_ad.training.model_dir import LoadedModel, load_model, noted_checkpoints
    except ModuleNotFoundError as e:
        raise missing_package(str(e.name), "export") from None
    from edge_ad.bundle import open_bundle
    from edge_ad.bundle.manifest import safe_name
    from edge_ad.data.dataset import open_dataset
    from edge_ad.parallel import cores

    safe_name(name, "--class")
    opened = open_bundle(bundle)
    loaded = load_model(model, checkpoints)
    bundles.check(opened, loaded.class_names)
    checkpoints = checkpoints or noted_checkpoints(model)
    dataset = open_dataset(data, layout, None)
    if name not in dataset.classes:
        dataset = open_dataset(data, layout, name)  # a flat folder does not know its class's name
    most = min(cores(), 8)
    options = AddOptions(steps=steps, jobs=jobs or most, threads=threads or most, checkpoints_dir=checkpoints)
    cache = cache if cache is not None else model.with_name(model.name + ".cache")
    added = add_class(loaded, dataset, name, cache, options, track=progress, say=log)
    for warning in added.warnings:
        log(f"warning: {warning}")
    enlarged = LoadedModel(
        model, loaded.preset, added.classes, loaded.points_scale_m, added.scenes, added.detector, added.provenance
    )
    before = opened.golden()
    with bundles.enlarged_bundle(opened, enlarged, dataset, name, keep_limits=keep_limits, say=log) as place:
        write_added(model, added, loaded, checkpoints)
        new = place()
    change = bundles.drift(before, new)
    engines = _rebuild(new)
    missing = [p for p in opened.precisions if p not in new.precisions]
    if as_json:
        echo_json(
            {
                "model": str(model),
                "bundle": str(bundle),
                "classes": new.class_names,
                "loss_old": [added.old_before, added.old_after],
                "loss_new": [added.new_before, added.new_after],
                "old_score_change": change,
                "engines": engines,
                "precisions_to_make": missing,
            }
        )
    else:
        click.echo(f"{bundle}: {', '.join(new.class_names)}")
        click.echo(f"loss on {name}: {added.new_before:.4f} -> {added.new_after:.4f}")
        click.echo(f"loss on the old classes: {added.old_before:.4f} -> {added.old_after:.4f}")
        click.echo(f"the old classes' golden scores change by at most {change:.1%}")
        for line in engines:
            click.echo(line)
    for precision in missing:
        log(f"make the {precision} graphs again: edge-ad calibrate {precision} {bundle} --data DIR")
    what = f"of {name} " if keep_limits else ""
    log(f"next, set the thresholds {what}again: edge-ad calibrate thresholds {bundle} --data DIR")


def _rebuild(bundle: Bundle) -> list[str]:
    """Build the stale plans of every engine that can be built here; a line an engine."""
    from edge_ad.engines import build_engines, read_sidecar
    from edge_ad.engines.identity import SIDECAR, build_command
    from edge_ad.errors import EdgeAdError

    lines = []
    for folder in sorted(p.parent for p in (bundle.path / "engines").glob(f"[!.]*/{SIDECAR}")):
        try:
            old = read_sidecar(folder)
            if old.backend == "onnxruntime":
                build_engines(bundle, old.backend, old.precision, force=True, progress=log)
                lines.append(f"engine {folder.name}: tried again")
                continue
            built = build_engines(
                bundle,
                old.backend,
                old.precision,
                compute_capability=old.capabilities,
                workspace_mb=old.workspace_mb,
                weight_streaming="WEIGHT_STREAMING" in old.flags,
                progress=log,
            )
            kept = ", ".join(b.graph for b in built if b.kept)
            lines.append(f"engine {folder.name}: built {', '.join(b.graph for b in built if not b.kept)}; kept {kept}")
        except EdgeAdError as e:
            lines.append(f"engine {folder.name}: not built here ({e})")
            log(f"warning: {build_command(old.backend, old.precision, bundle)}")
    return lines
