"""``edge-ad synth``: write synthetic parts with ground truth, in the layout of MVTec 3D-AD."""

from __future__ import annotations

from pathlib import Path

import click

from edge_ad.cli.common import cli_errors, echo_json, log, progress_line


@click.command(name="synth")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="New folder to write.")
@click.option("--classes", default="", help="Comma-separated classes; all by default.")
@click.option("--parts", "size", default="full", type=click.Choice(["small", "full"]), help="How many parts a class.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="The same seed: the same files.")
@click.option("--jobs", default=0, show_default=True, type=click.IntRange(min=0), help="Processes; 0: one a core.")
@click.option("--force", is_flag=True, help="Replace the folder if it exists.")
@cli_errors
def command(out: Path, classes: str, size: str, seed: int, jobs: int, force: bool, as_json: bool) -> None:
    """Write synthetic parts (colour, xyz, ground truth) for trials without a camera.

    \b
    Example:
      edge-ad synth --out demo/parts --classes gear,hex_nut
    """
    import time

    from edge_ad.data.synthetic import CLASSES, write_dataset

    chosen = [c.strip() for c in classes.split(",") if c.strip()] or list(CLASSES)
    start = time.monotonic()

    def tell(done: int, total: int) -> None:
        if done == total or done % max(total // 20, 1) == 0:
            log(progress_line("synth", done, total, time.monotonic() - start))

    items = write_dataset(out, classes=chosen, size=size, seed=seed, jobs=jobs, replace=force, progress=tell)
    defective = sum(item["defect"] is not None for item in items)
    summary = {"out": str(out), "classes": chosen, "parts": len(items), "defective": defective}
    if as_json:
        echo_json({**summary, "seconds": round(time.monotonic() - start, 2)})
    else:
        click.echo(f"{out}: {len(items)} parts of {len(chosen)} classes, {defective} of them defective")
