"""``edge-ad calibrate``: what a bundle needs from the line where it will work."""

from __future__ import annotations

from pathlib import Path

import click

from edge_ad.cli.common import cli_errors, echo_json, log, progress


@click.group(name="calibrate")
def command() -> None:
    """Set what a bundle needs from its own line.

    \b
    Example:
      edge-ad calibrate thresholds demo/bundle --data demo/parts --false-reject-rate 0.05
    """


@command.command(name="thresholds")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Good parts that fit has not seen.")
@click.option("--layout", default="auto", show_default=True, help="auto, mvtec3d, eyecandies or recordings.")
@click.option("--class-name", default=None, help="Class of a flat folder of recordings.")
@click.option("--split", default="validation", show_default=True, help="Which split holds the good parts.")
@click.option(
    "--false-reject-rate",
    "rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of good parts that may be rejected.",
)
@click.option("--augment", default=0, show_default=True, type=click.IntRange(min=0), help="Variations of every frame.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--precision", default="fp32", show_default=True)
@click.option("--jobs", default=0, type=click.IntRange(min=0), help="Processes; 0: one a core, at most 8.")
@cli_errors
def thresholds(
    bundle: Path,
    data: Path,
    layout: str,
    class_name: str | None,
    split: str,
    rate: float,
    augment: int,
    backend: str,
    precision: str,
    jobs: int,
    as_json: bool,
) -> None:
    """Set each class's threshold in BUNDLE from held-out good parts, for a chosen false-reject rate.

    With n good parts no rate below 1 / (n + 1) can be promised; a smaller wish is refused with that arithmetic. Also
    sets how much lost depth, and how great a distance from the class's anchor, good parts show.

    \b
    Example:
      edge-ad calibrate thresholds demo/bundle --data demo/parts --false-reject-rate 0.05
    """
    from edge_ad.bundle import Bundle
    from edge_ad.calibration.limits import calibrate
    from edge_ad.data.dataset import open_dataset

    opened = Bundle.open(bundle)
    dataset = open_dataset(data, layout, class_name)
    report = calibrate(
        opened,
        dataset,
        split=split,
        rate=rate,
        augment=augment,
        backend=backend,
        precision=precision,
        jobs=jobs,
        track=progress,
    )
    for line in report.warnings:
        log(f"warning: {line}")
    if as_json:
        echo_json({"bundle": str(bundle), "precision": precision, "classes": report.to_json()})
        return
    click.echo(report.table())
    click.echo(f"written into {bundle}")
