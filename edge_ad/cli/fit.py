"""``edge-ad fit``: one model over all classes of a data set of good parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.presets import Preset
    from edge_ad.training.fit import FitReport


@click.command(name="fit")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Folder of good parts.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Model directory to write.")
@click.option("--preset", "preset_name", default="compact", show_default=True, help="compact, paper, cfm or a file.")
@options.layout
@click.option(
    "--class", "--class-name", "class_name", default=None, help='Name of the one class, as it is spoken: "hex nut".'
)
@click.option("--classes", default="", help="Comma-separated classes to fit; all by default.")
@click.option("--set", "overrides", multiple=True, metavar="TABLE.FIELD=VALUE", help="Change a field of the preset.")
@options.augment
@click.option(
    "--variants",
    default="",
    metavar="'NAME: DIAL=VALUE, ...; ...'",
    help="Also fit smaller variants for edge-ad tune, e.g. 'light: groups=256; short: layers=4'.",
)
@click.option("--cache", default=None, type=click.Path(path_type=Path), help="For features; default OUT.cache.")
@options.checkpoints
@click.option("--seed", default=None, type=click.IntRange(0, 2**31 - 1), help="Instead of the preset's.")
@click.option("--epochs", default=None, type=click.IntRange(min=1), help="Instead of the preset's.")
@click.option("--min-steps", default=600, show_default=True, type=click.IntRange(min=1), help="For small sets.")
@click.option("--samples-per-step", default=16, show_default=True, type=click.IntRange(min=1))
@options.feature_jobs
@click.option(
    "--threads", default=0, type=click.IntRange(min=0), help="Threads for training; 0: one a core, at most 8."
)
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on with a training that was cut off.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@cli_errors
def command(
    data: Path,
    out: Path,
    preset_name: str,
    layout: str,
    class_name: str | None,
    classes: str,
    overrides: tuple[str, ...],
    augment: int,
    variants: str,
    cache: Path | None,
    checkpoints: Path | None,
    seed: int | None,
    epochs: int | None,
    min_steps: int,
    samples_per_step: int,
    jobs: int,
    threads: int,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Fit the mappers and the text anchors on good parts.

    Features of the frozen encoders are computed once and kept in the cache; a run that was cut off goes on where it was
    and ends with the same bits.

    \b
    Example:
      edge-ad fit --data demo/parts --out demo/model
    """
    from edge_ad.data.dataset import open_dataset
    from edge_ad.parallel import cores
    from edge_ad.presets import load_preset
    from edge_ad.presets.variants import parse_variants
    from edge_ad.training.fit import FitOptions
    from edge_ad.training.trainer import TrainingPlan
    from edge_ad.training.variants import fit_with_variants

    preset = override(load_preset(preset_name), overrides)
    if seed is not None:
        preset = override(preset, (f"training.seed={seed}",))
    if epochs is not None:
        preset = override(preset, (f"training.epochs={epochs}",))
    most = min(cores(), 8)
    options = FitOptions(
        classes=tuple(c.strip() for c in classes.split(",") if c.strip()),
        augment=augment,
        jobs=jobs or most,
        fresh=not resume,
        replace=force,
        plan=TrainingPlan(samples_per_step=samples_per_step, min_steps=min_steps, threads=threads or most),
        checkpoints_dir=checkpoints,
    )
    dataset = open_dataset(data, layout=layout, class_name=class_name)
    cache = cache if cache is not None else out.with_name(out.name + ".cache")
    wanted = parse_variants(variants) if variants else {}
    report, others = fit_with_variants(preset, dataset, out, cache, options, wanted, track=progress, say=log)
    for warning in report.warnings:
        log(f"warning: {warning}")
    if as_json:
        echo_json(
            {
                "out": str(out),
                "classes": report.classes,
                "balance": report.balance,
                "warnings": report.warnings,
                "variants": {name: other.provenance for name, other in others.items()},
                **report.provenance,
            }
        )
    else:
        click.echo(summary(report))
        for name, other in others.items():
            losses = other.provenance["loss_curve"]
            changes = other.provenance["changes"]
            click.echo(f"variant {name} ({changes}): loss {losses[0]:.4f} -> {losses[-1]:.4f}")


def override(preset: Preset, overrides: tuple[str, ...]) -> Preset:
    """A preset with fields changed by ``table.field=value``; values as in TOML, a bare word is a string."""
    from edge_ad.errors import EdgeAdError
    from edge_ad.presets import preset_from_dict

    values = preset.to_dict()
    for text in overrides:
        name, equals, value = text.partition("=")
        table, dot, field = name.strip().partition(".")
        if not (equals and dot and field):
            raise EdgeAdError(f"--set {text}", "TABLE.FIELD=VALUE, for instance geometry.crop=roi")
        if not isinstance(values.get(table), dict):
            tables = ", ".join(k for k, v in values.items() if isinstance(v, dict))
            raise EdgeAdError(f"--set {text}: no table '{table}'", f"one of {tables}")
        values[table][field] = _toml_value(value.strip())
    return preset_from_dict(values, where=f"{preset.name} with --set") if overrides else preset


def _toml_value(text: str) -> Any:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def summary(report: FitReport) -> str:
    """The lines that a person reads after a fit."""
    p = report.provenance
    curve = p["loss_curve"]
    lines = [
        f"{report.out}: {len(report.classes)} classes, {sum(p['training_samples'].values())} training samples, "
        f"{p['held_out_samples']} held out",
        f"loss {curve[0]:.4f} -> {curve[-1]:.4f} in {p['steps']} steps ({p['skipped_steps']} skipped), "
        f"{p['seconds']['features']:.0f} s features, {p['seconds']['training']:.0f} s training",
        "balance: " + ", ".join(f"{k} {v:.4f}" for k, v in zip(("rgb", "3d", "text"), report.balance, strict=True)),
    ]
    if report.cosines is not None and len(report.classes) > 1:
        width = max(len(c) for c in report.classes)
        lines.append("anchor cosines:")
        for name, row in zip(report.classes, report.cosines, strict=True):
            lines.append(f"  {name:<{width}} " + " ".join(f"{v:6.3f}" for v in row))
    return "\n".join(lines)
