"""``edge-ad cameras``: the sources that ``--camera`` takes."""

from __future__ import annotations

import click

from edge_ad.cli.common import cli_errors, echo_json

SOURCES: tuple[tuple[str, str, str], ...] = (
    (
        "folder:DIR",
        "recordings on disk: NAME.color.png, NAME.depth.png (16 bit) and a camera.json, or a data set's folder",
        "folder:recordings/line1",
    ),
    (
        "synthetic:CLASS",
        "made on the fly, no camera needed; seed, number of frames and share of defective parts can be set",
        "synthetic:CLASS?seed=0&frames=50&defects=0.3",
    ),
)


@click.command()
@cli_errors
def command(as_json: bool) -> None:
    """List the sources that --camera takes.

    \b
    Example:
      edge-ad cameras --json
    """
    if as_json:
        echo_json({"cameras": [{"uri": uri, "what": what, "example": example} for uri, what, example in SOURCES]})
        return
    for uri, what, example in SOURCES:
        click.echo(f"{uri:<18}{what}")
        click.echo(f"{'':<18}e.g. {example}")
