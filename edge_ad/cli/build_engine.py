"""``edge-ad build-engine``: build (or, for onnxruntime, try) the engines of a bundle for this device."""

from __future__ import annotations

import click

from edge_ad.cli.common import cli_errors, echo_json, log


@click.command("build-engine")
@click.argument("bundle", type=click.Path())
@click.option(
    "--backend",
    type=click.Choice(["onnxruntime", "tensorrt-rtx", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="What will run the graphs. tensorrt-rtx builds without a GPU, tensorrt on the GPU that runs the engine.",
)
@click.option("--precision", default="fp32", show_default=True, help="A precision that the bundle was exported in.")
@click.option(
    "--compute-capability",
    multiple=True,
    metavar="X.Y",
    help="Target of tensorrt-rtx, e.g. 8.6; may be repeated; 'portable': 8.0 and up. Default: this GPU, else 8.6.",
)
@click.option("--workspace-mb", type=int, help="Cap on scratch memory. Default: 1024 for tensorrt.")
@click.option("--force", is_flag=True, help="Replace an engine that was built before.")
@cli_errors
def command(
    bundle: str,
    backend: str,
    precision: str,
    compute_capability: tuple[str, ...],
    workspace_mb: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Build the engines of BUNDLE for one backend and precision.

    \b
    Example:
      edge-ad build-engine demo/bundle --backend tensorrt-rtx --compute-capability 8.6
    """
    from edge_ad.bundle import open_bundle
    from edge_ad.engines import build_engines

    opened = open_bundle(bundle)
    built = build_engines(
        opened,
        backend,
        precision,
        compute_capability=compute_capability,
        workspace_mb=workspace_mb,
        force=force,
        progress=log,
    )
    if as_json:
        echo_json(
            {
                "bundle": str(opened.path),
                "backend": backend,
                "precision": precision,
                "engines": [
                    {"graph": b.graph, "path": str(b.path), "bytes": b.bytes, "seconds": b.seconds} for b in built
                ],
            }
        )
        return
    click.echo(f"{'graph':<10} {'size MB':>9} {'seconds':>9}")
    for b in built:
        click.echo(f"{b.graph:<10} {b.bytes / 1e6:>9.2f} {b.seconds:>9.2f}")
    if backend == "onnxruntime":
        click.echo("ready: onnxruntime runs the graphs as they are")
