"""``edge-ad profile``: where the milliseconds and megabytes of a frame go."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log, progress


@click.command(name="profile")
@options.bundle
@click.option("--camera", default=None, help="Where frames come from; default: the bundle's own golden frames.")
@click.option("--frames", default=50, show_default=True, type=click.IntRange(min=1), help="Frames that are timed.")
@click.option("--warm-up", default=3, show_default=True, type=click.IntRange(min=0), help="Frames before them.")
@click.option("--class", "class_name", default=None, help="Class of every part, or auto.")
@options.tuned_point
@click.option("--on-device", is_flag=True, help="With TensorRT: the device pipeline, its stages timed by events.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Threads of the backend; 0: one a core.")
@click.option("--png", default=None, type=click.Path(path_type=Path), help="Write a chart.")
@click.option("--compare", default=None, type=click.Path(path_type=Path), help="A file of an earlier --json.")
@cli_errors
def command(
    bundle: Path,
    camera: str | None,
    frames: int,
    warm_up: int,
    class_name: str | None,
    backend: str | None,
    precision: str | None,
    variant: str | None,
    score_stride: int | None,
    on_device: bool,
    threads: int,
    png: Path | None,
    compare: Path | None,
    as_json: bool,
) -> None:
    """Time every stage of BUNDLE on this box: p50/p90/p99, memory, and the floor that its arithmetic implies.

    Frames go through one after the other, as in `run --latency`. The projection for boards is one: nothing was measured
    there.

    \b
    Example:
      edge-ad profile demo/bundle --frames 20 --png profile.png
    """
    from edge_ad.bundle import Bundle
    from edge_ad.errors import EdgeAdError
    from edge_ad.runtime.point import choose_point, point_lines
    from edge_ad.runtime.profiling import profile
    from edge_ad.runtime.profiling.report import chart, compare_text, read_earlier, to_text
    from edge_ad.sensors import open_camera

    opened = Bundle.open(bundle)
    point = choose_point(opened, variant, score_stride, precision, backend)
    earlier = None if compare is None else read_earlier(compare)  # before the work
    with ExitStack() as stack:
        if camera is not None:
            source = stack.enter_context(open_camera(camera))
        else:
            golden = [g.frame for g in opened.golden()]
            if not golden:
                raise EdgeAdError(f"{opened.where} has no golden frames", "frames to time", "name a --camera")
            source = cycle(golden)  # type: ignore[assignment]
        found = profile(
            opened,
            point,
            source,
            frames=frames,
            warm_up=warm_up,
            threads=threads or None,
            class_name=class_name,
            on_device=on_device,
            track=progress,
        )
    for line in point_lines(opened, point):
        log(line)
    document = found.to_json()
    if png is not None:
        chart(found, png)
        log(f"wrote {png}")
    beside = compare_text(document, earlier) if earlier is not None else ""
    if as_json:
        if beside:
            log(beside)
        echo_json(document)
        return
    click.echo(to_text(found) + (f"\n\n{beside}" if beside else ""))
