"""``edge-ad calibrate int8`` and ``edge-ad calibrate fp16``: graphs of another precision, from real frames."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.bundle import Bundle
    from edge_ad.export.precision.overflow import Kept
    from edge_ad.frame import Frame

_FRAMES = (
    click.option("--data", type=click.Path(path_type=Path), help="Folder of parts; held-out good ones are taken."),
    click.option("--layout", default="auto", show_default=True, help="auto, mvtec3d, eyecandies or recordings."),
    click.option("--camera", help="Take frames from a camera instead (see edge-ad cameras)."),
    click.option(
        "--class",
        "--class-name",
        "class_name",
        default=None,
        help="Class of the parts, where the source does not know it.",
    ),
    click.option("--variant", default="base", show_default=True, help="Which variant of the bundle."),
    click.option("--jobs", default=0, type=click.IntRange(min=0), help="Processes or threads; 0: one a core."),
)


def _frame_options(callback: Callable[..., object]) -> Callable[..., object]:
    for option in reversed(_FRAMES):
        callback = option(callback)
    return callback


@click.command(name="int8")
@click.argument("bundle", type=click.Path(path_type=Path))
@_frame_options
@click.option("--frames", default=64, show_default=True, type=click.IntRange(min=1), help="Frames to calibrate on.")
@click.option(
    "--method",
    default="mse",
    show_default=True,
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    help="How a layer's range is chosen.",
)
@click.option(
    "--percentile",
    default=99.99,
    show_default=True,
    type=click.FloatRange(0, 100, min_open=True),
    help="For --method percentile.",
)
@click.option(
    "--max-drop",
    default=None,
    type=click.FloatRange(min=0),
    help="Points that INT8 may cost; the costliest blocks stay FP16 until it is met. Not measured without it.",
)
@click.option(
    "--parts", default=0, type=click.IntRange(min=0), help="Parts a class for --max-drop. Default: the whole split."
)
@click.option("--every-layer", is_flag=True, help="In INT8 also the layers that cost most; else they stay FP16.")
@click.option("--picture", type=click.Path(path_type=Path), help="Sensitivity as PNG. Default: BUNDLE-int8.png.")
@click.option("--table", type=click.Path(path_type=Path), help="Apply a calibration table instead of making one.")
@cli_errors
def int8(
    bundle: Path,
    data: Path | None,
    layout: str,
    camera: str | None,
    class_name: str | None,
    variant: str,
    jobs: int,
    frames: int,
    method: str,
    percentile: float,
    max_drop: float | None,
    parts: int,
    every_layer: bool,
    picture: Path | None,
    table: Path | None,
    as_json: bool,
) -> None:
    """Put INT8 graphs into BUNDLE: ranges from real frames, Q/DQ on its linear and convolution layers.

    Needs the extra `export`, so it runs on the workstation. The layers at which most of the error arises stay FP16.
    With --max-drop every block is measured alone in the task's own metrics (I-AUROC and AUPRO@30 % on the test split;
    with good parts only, the map's correlation and the false-reject rate), and the costliest stay FP16 too. The table
    lies in the bundle as precision/int8.txt. Set INT8's own thresholds afterwards: edge-ad calibrate thresholds BUNDLE
    --data DIR --precision int8.

    \b
    Example:
      edge-ad calibrate int8 demo/bundle --data demo/parts --max-drop 0.2
    """
    from edge_ad.bundle import Bundle
    from edge_ad.calibration.int8.table import read_table
    from edge_ad.errors import EdgeAdError

    _one_source(data, camera, table)
    made = None if table is None else read_table(table)
    _need_onnx()
    from edge_ad.calibration.int8 import calibrate as steps
    from edge_ad.data.dataset import open_dataset
    from edge_ad.parallel import cores

    opened = Bundle.open(bundle).as_variant(variant)
    if made is not None:
        if max_drop is not None:
            raise EdgeAdError("--max-drop with --table", "--data or --camera to measure on")
        report = steps.apply_table(opened, made, str(table), threads=jobs or cores(), track=progress)
    else:
        shown, where = _frames(opened, data, layout, camera, class_name, frames)
        measure_on = []
        if max_drop is not None and data is not None:
            measure_on = steps.parts_to_measure(opened, open_dataset(data, layout, class_name), parts)
        elif max_drop is not None:
            measure_on = steps.items_of_frames(shown, opened)
        report = steps.calibrate_int8(
            opened,
            shown,
            where,
            method=method,
            percentile=percentile,
            every_layer=every_layer,
            max_drop=max_drop,
            measure_on=measure_on,
            jobs=jobs,
            threads=jobs or cores(),
            track=progress,
        )
    for line in report.warnings:
        log(f"warning: {line}")
    drawn = None
    if report.sensitivity is not None:
        from edge_ad.calibration.int8.picture import save

        drawn = picture or bundle.with_name(f"{bundle.name}-int8.png")
        save(report.sensitivity, drawn)
        log(f"wrote {drawn}")
    if as_json:
        echo_json({"bundle": str(bundle), "picture": drawn, **report.to_json()})
        return
    click.echo(report.text())
    click.echo(f"written into {bundle} (table: precision/int8.txt)")
    _next_threshold(bundle, "int8", data, variant)


@click.command(name="fp16")
@click.argument("bundle", type=click.Path(path_type=Path))
@_frame_options
@click.option("--frames", default=32, show_default=True, type=click.IntRange(min=1), help="Frames to look at.")
@cli_errors
def fp16(
    bundle: Path,
    data: Path | None,
    layout: str,
    camera: str | None,
    class_name: str | None,
    variant: str,
    jobs: int,
    frames: int,
    as_json: bool,
) -> None:
    """Put FP16 graphs into BUNDLE; what overflows on real frames stays FP32 and is listed.

    The frames go through the rounding twin: float32 with a cast to FP16 and back after every operation that runs in
    FP16. Without --data and --camera the bundle's golden frames are taken. Needs the extra `export`, so it runs on the
    workstation. LayerNorm and the sums that it reads, distances and the standardisation of the features always stay
    FP32.

    \b
    Example:
      edge-ad calibrate fp16 demo/bundle --data demo/parts
    """
    from edge_ad.bundle import Bundle

    if data is not None or camera is not None:
        _one_source(data, camera, None)
    _need_onnx()
    from edge_ad.export.precision.assemble import graph_sizes

    opened = Bundle.open(bundle).as_variant(variant)
    shown = None
    if data is not None or camera is not None:
        from edge_ad.calibration.int8.frames import refuse_constant

        shown, where = _frames(opened, data, layout, camera, class_name, frames)
        refuse_constant(shown, where)
    written, kept = make_fp16(opened, shown, jobs)
    count = len(opened.golden() if shown is None else shown)
    overflows = [k for k in kept if k.why == "overflow"]
    size = graph_sizes(written, "fp16")
    if as_json:
        echo_json(
            {
                "bundle": str(bundle),
                "frames": count,
                "kept_fp32": [k.__dict__ for k in kept],
                "bytes": {g: {"fp32": a, "fp16": b} for g, (a, b) in size.items()},
            }
        )
        return
    click.echo(f"{'graph':8} {'float32 MB':>11} {'FP16 MB':>8} {'nodes in FP32':>13} {'overflows':>9}")
    for g, (full, half) in size.items():
        mine = [k for k in kept if k.graph == g]
        found = sum(k.why == "overflow" for k in mine)
        click.echo(f"{g:8} {full / 1e6:11.2f} {half / 1e6:8.2f} {len(mine):13d} {found:9d}")
    for k in overflows:
        click.echo(f"overflow: {k.graph} {k.node} reached {k.peak:.3g}; it stays FP32")
    click.echo(f"written into {bundle} ({count} frames; list: precision/fp16.txt)")
    _next_threshold(bundle, "fp16", data, variant)


def make_fp16(
    bundle: Bundle, frames: list[tuple[Frame, str]] | None = None, threads: int = 0
) -> tuple[Bundle, list[Kept]]:
    """Put FP16 graphs into an open bundle, by these frames or its golden ones; see ``add_fp16``."""
    _need_onnx()
    from edge_ad.calibration.int8.frames import frames_of_bundle
    from edge_ad.engines.compare import load_sessions
    from edge_ad.engines.cost import measure_cost, write_cost
    from edge_ad.export.precision.assemble import add_fp16, twin_bundle
    from edge_ad.export.precision.replay import Replay
    from edge_ad.parallel import cores

    bundle.writable("graphs cannot be added")
    replay = Replay(bundle, threads or cores())
    shown = frames_of_bundle(bundle) if frames is None else frames
    written, kept = add_fp16(bundle, replay, replay.prepare(shown), progress)
    with twin_bundle(written) as twin:  # what FP16 costs each graph, for the golden gate
        cost = measure_cost(written, load_sessions(twin, "onnxruntime", "fp32", threads or None), threads or None)
    return write_cost(written, "fp16", cost), kept


def rounding_twin_of(bundle: Bundle) -> AbstractContextManager[Bundle]:
    """The scratch bundle on which FP16 is measured where there is no GPU."""
    _need_onnx()
    from edge_ad.export.precision.assemble import twin_bundle

    log("fp16 is measured on the rounding twin (docs/precision.md)")
    return twin_bundle(bundle)


def _one_source(data: Path | None, camera: str | None, table: Path | None) -> None:
    from edge_ad.errors import EdgeAdError

    given = [n for n, v in (("--data", data), ("--camera", camera), ("--table", table)) if v is not None]
    if len(given) != 1:
        raise EdgeAdError(
            " and ".join(given) or "no frames to calibrate on", "one of --data DIR, --camera URI, --table FILE"
        )


def _need_onnx() -> None:
    from edge_ad.errors import EdgeAdError

    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        raise EdgeAdError(
            "the package 'onnx' is not installed",
            "the extra 'export', which brings it",
            "do this on the workstation (pip install 'edge-ad[export]') and copy the bundle to the box",
        ) from None


def _frames(
    bundle: Bundle, data: Path | None, layout: str, camera: str | None, class_name: str | None, count: int
) -> tuple[list[tuple[Frame, str]], str]:
    from edge_ad.calibration.int8.frames import frames_of_camera, frames_of_data
    from edge_ad.data.dataset import open_dataset

    if camera is not None:
        return frames_of_camera(camera, count, class_name or "", progress), camera
    assert data is not None
    return frames_of_data(bundle, open_dataset(data, layout, class_name), count, progress), str(data)


def _next_threshold(bundle: Path, precision: str, data: Path | None, variant: str) -> None:
    other = "" if variant == "base" else f" --variant {variant}"
    where = f"--data {data or 'DIR'} --precision {precision}{other}"
    click.echo(f"next: edge-ad calibrate thresholds {bundle} {where}")
