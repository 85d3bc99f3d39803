"""``edge-ad build-engine``: build (or, for onnxruntime, try) the engines of a bundle for this device."""

from __future__ import annotations

from pathlib import Path

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
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 or int8 (edge-ad calibrate).")
@click.option(
    "--compute-capability",
    multiple=True,
    metavar="X.Y",
    help="Target of tensorrt-rtx, e.g. 8.6; may be repeated; 'portable': 8.0 and up. Default: this GPU, else 8.6.",
)
@click.option("--workspace-mb", type=int, help="Cap on scratch memory. Default: 1024 for tensorrt.")
@click.option("--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Most parts a run.")
@click.option("--weight-streaming", is_flag=True, help="Keep weights in host memory where the GPU's does not suffice.")
@click.option("--timing-cache", type=click.Path(path_type=Path), help="For tensorrt. Default: one in ~/.cache/edge-ad.")
@click.option("--variant", default="base", show_default=True, help="Variant of the bundle's model.")
@click.option("--force", is_flag=True, help="Replace an engine that was built before.")
@cli_errors
def command(
    bundle: str,
    backend: str,
    precision: str,
    compute_capability: tuple[str, ...],
    workspace_mb: int | None,
    batch: int,
    weight_streaming: bool,
    timing_cache: Path | None,
    variant: str,
    force: bool,
    as_json: bool,
) -> None:
    """Build the engines of BUNDLE for one backend and precision.

    Plans of graphs that did not change are kept. On the device that runs them the golden frames decide at once whether
    the engine may stay; elsewhere they do when it is first loaded.

    \b
    Example:
      edge-ad build-engine demo/bundle --backend tensorrt-rtx --compute-capability 8.6
    """
    from edge_ad.bundle import open_bundle
    from edge_ad.engines import build_engines

    opened = open_bundle(bundle).as_variant(variant)
    if precision == "fp16" and "fp16" not in opened.precisions and backend != "onnxruntime":
        from edge_ad.cli.calibrate_precision import make_fp16
        from edge_ad.engines import trt
        from edge_ad.engines.targets import choose_targets

        trt.load_module(backend)  # what cannot be built here is said before the bundle is changed
        choose_targets(backend, compute_capability, lambda _: None)
        log("the bundle has no FP16 graphs: making them from its golden frames (edge-ad calibrate fp16)")
        opened, _ = make_fp16(opened)
    built = build_engines(
        opened,
        backend,
        precision,
        compute_capability=compute_capability,
        workspace_mb=workspace_mb,
        batch=batch,
        weight_streaming=weight_streaming,
        timing_cache=timing_cache,
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
                    {"graph": b.graph, "path": str(b.path), "bytes": b.bytes, "seconds": b.seconds, "kept": b.kept}
                    for b in built
                ],
            }
        )
        return
    click.echo(f"{'graph':<10} {'size MB':>9} {'seconds':>9}")
    for b in built:
        click.echo(f"{b.graph:<10} {b.bytes / 1e6:>9.2f} {'kept' if b.kept else format(b.seconds, '.2f'):>9}")
    if backend == "onnxruntime":
        click.echo("ready: onnxruntime runs the graphs as they are")
