"""``edge-ad tune``: the best operating point for a box and a time budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.calibration.tune import Row


@click.command(name="tune")
@options.bundle
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out good parts; a test split helps.")
@click.option("--target-ms", type=click.FloatRange(0, min_open=True), help="Median time a frame, one in flight.")
@click.option("--target-fps", type=click.FloatRange(0, min_open=True), help="Frames a second with --throughput.")
@options.layout
@options.class_name
@click.option("--variants", default="", help="Comma-separated; default: all that the bundle carries.")
@click.option("--strides", default="1,2,3,4", show_default=True, help="Comma-separated score strides.")
@click.option("--precisions", default="", help="Comma-separated; default: all that run here.")
@click.option("--backends", default="", help="Comma-separated; default: onnxruntime, and openvino where installed.")
@options.good_parts
@click.option("--frames", default=20, show_default=True, type=click.IntRange(min=3), help="Timed frames a point.")
@click.option("--limit", default=0, type=click.IntRange(min=0), help="Test parts a class and defect; 0: all.")
@click.option("--jobs", default=0, type=click.IntRange(min=0), help="Processes for the accuracy; 0: one a core.")
@cli_errors
def command(
    bundle: Path,
    data: Path,
    target_ms: float | None,
    target_fps: float | None,
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

    The choice is the most accurate point that meets the target, or both; `edge-ad run` then uses it by default. Its
    thresholds are set anew on held-out good parts. Accuracy is I-AUROC and AUPRO@30 % where the data has a test split
    with defects, else the correlation of the maps with the exact float32 model's.

    \b
    Example:
      edge-ad tune demo/bundle --data demo/parts --target-ms 40
      edge-ad tune demo/bundle --data demo/parts --target-fps 25 --strides 1,2,3,4,6
    """
    from edge_ad.bundle import Bundle
    from edge_ad.calibration.tune import available_backends, available_precisions, candidates, tune
    from edge_ad.data.dataset import open_dataset
    from edge_ad.errors import EdgeAdError

    if target_ms is None and target_fps is None:
        raise EdgeAdError("no target", "--target-ms, --target-fps, or both", "for instance --target-ms 40")
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
        target_fps=target_fps,
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
    time = found.chosen.time
    assert time is not None
    click.echo(
        f"chosen: {found.chosen.point}, {time.p50_ms:.1f} ms, {time.per_second:.1f} frames/s; written into {bundle}"
    )


def table(rows: Sequence[Row]) -> str:
    """All points, the Pareto front marked with a star."""
    lines = [
        f"  {'variant':14} {'stride':>6} {'precision':9} {'backend':12} {'p50 ms':>8} {'p90 ms':>8} {'fps':>6} "
        f"{'peak MB':>8} {'I-AUROC':>8} {'AUPRO@30':>8} {'corr.':>7} {'rejects':>8}"
    ]

    def show(value: float | None, digits: int = 3) -> str:
        return "-" if value is None or value != value else f"{value:.{digits}f}"

    for r in rows:
        p = r.point
        head = f"{'*' if r.pareto else ' '} {p.variant:14} {p.stride:6d} {p.precision:9} {p.backend:12}"
        if r.reason or r.accuracy is None or r.time is None:
            lines.append(f"{head} left out: {r.reason}")
            continue
        a, t = r.accuracy, r.time
        lines.append(
            f"{head} {t.p50_ms:8.1f} {t.p90_ms:8.1f} {t.per_second:6.1f} {t.peak_mb:8.0f} "
            f"{show(a.i_auroc):>8} {show(a.aupro_30):>8} {show(a.map_correlation, 4):>7} {show(a.false_reject):>8}"
        )
    lines.append(
        "* no other point is faster, smaller and more accurate at once; p50, p90: one frame in flight; fps: with "
        "--throughput; rejects: good test parts above every held-out good part"
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
