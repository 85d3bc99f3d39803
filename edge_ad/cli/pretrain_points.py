"""``edge-ad pretrain-points``: train the compact preset's point encoder by masked autoencoding on procedural shapes."""

from __future__ import annotations

from pathlib import Path

import click

from edge_ad.cli.common import cli_errors, echo_json, log


@click.command("pretrain-points")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Weights to write (.safetensors).")
@click.option("--steps", default=1200, show_default=True, type=click.IntRange(1), help="Optimiser steps.")
@click.option("--seed", default=115, show_default=True, type=click.IntRange(0), help="Seed of shapes and training.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("pretrain-work"),
    show_default=True,
    help="Folder for the shapes and the training state; a run stopped halfway resumes from here.",
)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Processor threads.")
@click.option("--pool", default=2000, show_default=True, type=click.IntRange(8), help="Procedural clouds to draw.")
@click.option(
    "--geometry-weight",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Weight of the local-surface head beside the reconstruction; 0: masked autoencoding alone.",
)
@click.option("--log", "log_file", type=click.Path(path_type=Path), help="Log file. Default: --out with .log.")
@cli_errors
def command(
    out: Path,
    steps: int,
    seed: int,
    work: Path,
    threads: int,
    pool: int,
    geometry_weight: float,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """Train the compact preset's point encoder on procedural shapes and write its weights.

    \b
    Example:
      edge-ad pretrain-points --out point_mae.safetensors --steps 1200
    """
    import torch

    from edge_ad.presets import load_preset
    from edge_ad.training.pretrain.mae import Sizes
    from edge_ad.training.pretrain.pool import load_or_make_pool
    from edge_ad.training.pretrain.train import Recipe, Trainer, pretrain

    torch.set_num_threads(threads)
    points = load_preset("compact").points
    first, second, third = points.widths
    sizes = Sizes(points.dim, points.depth, points.heads, points.taps, (first, second, third), points.group_size)
    held_out = load_or_make_pool(work, 48, points.groups, points.group_size, seed + 1)
    shapes = load_or_make_pool(work, pool, points.groups, points.group_size, seed, say=log)
    trainer = Trainer(sizes, Recipe(steps=steps, seed=seed, geometry_weight=geometry_weight), shapes)
    state = work / f"state-{out.stem}.pt"
    if state.is_file():
        trainer.resume(state)
        log(f"resumed after step {trainer.count}")
    final = pretrain(trainer, held_out, out, log_file or out.with_suffix(".log"), state, log)
    state.unlink(missing_ok=True)
    if as_json:
        echo_json({"out": str(out), "steps": trainer.count, "held_out": final})
    else:
        click.echo(str(out))
