"""``edge-ad tune``: the best operating point for a box and a time budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.calibration.tune import Row


@click.command(name="tune")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out good parts; a test split helps.")
@click.option("--target-ms", required=True, type=click.FloatRange(0, min_open=True), help="Median time a frame.")
@click.option("--layout", default="auto", show_default=True, help="auto, mvtec3d, eyecandies or recordings.")
@click.option("--class-name", default=None, help="Class of a flat folder of recordings.")
@click.option("--variants", default="", help="Comma-separated; default: all that the bundle carries.")
@click.option("--strides", default="1,2,3", show_default=True, help="Comma-separated score strides.")
@click.option("--precisions", default="", help="Comma-separated; default: all that run here.")
@click.option("--backends", default="", help="Comma-separated; default: onnxruntime, and openvino where installed.")
@click.option("--split", default="validation", show_default=True, help="Which split holds the good parts.")
@click.option(
    "--false-reject-rate",
    "rate",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of good parts that may be rejected.",
)
@click.option("--frames", default=20, show_default=True, type=click.IntRange(min=3), help="Timed frames a point.")
@click.option("--limit", default=0, type=click.IntRange(min=0), help="Test parts a class and defect; 0: all.")
@click.option("--jobs", default=0, type=click.IntRange(min=0), help="Processes for the accuracy; 0: one a core.")
@cli_errors
def command(
    bundle: Path,
    data: Path,
    target_ms: float,
    layout: str,
    class_name: str | None,
    variants: str,
    strides: str,
    precisions: str,
    backends: str,
    split: str,
    rate: float,
    frames: int,
    limit: int,
    jobs: int,
    as_json: bool,
) -> None:
    """Measure variants, score strides, precisions and backends of BUNDLE on this box and write the best into it.

    The choice is the most accurate point whose median time a frame meets the target; `edge-ad run` then uses it by
    default. Its thresholds are set anew on held-out good parts. Accuracy is I-AUROC and AUPRO@30 % where the data has a
    test split with defects, else the correlation of the maps with the exact float32 model's.

    \b
    Example:
      edge-ad tune demo/bundle --data demo/parts --target-ms 40
    """
    from edge_ad.bundle import Bundle
    from edge_ad.calibration.tune import available_backends, available_precisions, candidates, tune
    from edge_ad.data.dataset import open_dataset

    opened = Bundle.open(bundle)
    dataset = open_dataset(data, layout, class_name)
    chosen_backends = _words(backends) or available_backends()
    points = candidates(
        opened,
        _words(variants) or opened.variants,
        _numbers(strides),
        _words(precisions) or available_precisions(opened, chosen_backends),
        chosen_backends,
    )
    found = tune(
        opened,
        dataset,
        points,
        target_ms=target_ms,
        split=split,
        rate=rate,
        frames=frames,
        limit=limit,
        jobs=jobs,
        say=log,
        show=lambda rows: log(table(rows)),
        track=progress,
    )
    for line in found.notes:
        log(f"warning: {line}")
    if as_json:
        document = {**found.measured, "chosen": found.chosen.to_json(), "classes": found.limits.to_json()}
        echo_json({"bundle": str(bundle), **document})
        return
    click.echo(found.limits.table())
    click.echo(f"chosen: {found.chosen.point}, {found.chosen.p50_ms:.1f} ms; written into {bundle}")


def table(rows: Sequence[Row]) -> str:
    """All points, the Pareto front marked with a star."""
    lines = [
        f"  {'variant':14} {'stride':>6} {'precision':9} {'backend':12} {'p50 ms':>8} {'p90 ms':>8} {'peak MB':>8} "
        f"{'I-AUROC':>8} {'AUPRO@30':>8} {'corr.':>7} {'rejects':>8}"
    ]

    def show(value: float | None, digits: int = 3) -> str:
        return "-" if value is None or value != value else f"{value:.{digits}f}"

    for r in rows:
        p = r.point
        head = f"{'*' if r.pareto else ' '} {p.variant:14} {p.stride:6d} {p.precision:9} {p.backend:12}"
        if r.reason or r.accuracy is None:
            lines.append(f"{head} left out: {r.reason}")
            continue
        a = r.accuracy
        lines.append(
            f"{head} {r.p50_ms:8.1f} {r.p90_ms:8.1f} {r.peak_mb:8.0f} {show(a.i_auroc):>8} {show(a.aupro_30):>8} "
            f"{show(a.map_correlation, 4):>7} {show(a.false_reject):>8}"
        )
    lines.append(
        "* no other point is faster, smaller and more accurate at once; rejects: good test parts above every held-out "
        "good part"
    )
    return "\n".join(lines)


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


def _numbers(text: str) -> tuple[int, ...]:
    from edge_ad.bundle.variants import check_stride
    from edge_ad.errors import EdgeAdError

    try:
        found = tuple(check_stride(int(w)) for w in _words(text))
    except ValueError:
        raise EdgeAdError(f"--strides {text}", "whole numbers, for instance 1,2,3") from None
    if not found:
        raise EdgeAdError(f"--strides '{text}'", "whole numbers, for instance 1,2,3")
    return found
