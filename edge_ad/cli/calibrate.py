"""``edge-ad calibrate``: what a bundle needs from the line where it will work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli import options
from edge_ad.cli.calibrate_precision import fp16, int8, rounding_twin_of
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.frame import Frame


@click.group(name="calibrate")
def command() -> None:
    """Set what a bundle needs from its own line.

    \b
    Example:
      edge-ad calibrate thresholds demo/bundle --data demo/parts --false-reject-rate 0.05
      edge-ad calibrate int8 demo/bundle --data demo/parts --max-drop 0.2
    """


@command.command(name="thresholds")
@options.bundle
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Good parts that fit has not seen.")
@options.layout
@options.class_name
@options.good_parts
@options.augment
@options.point
@options.jobs
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
    variant: str,
    score_stride: int,
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
    from contextlib import ExitStack

    from edge_ad.bundle import Bundle
    from edge_ad.calibration.limits import calibrate
    from edge_ad.data.dataset import open_dataset

    opened = Bundle.open(bundle).as_variant(variant, score_stride)
    dataset = open_dataset(data, layout, class_name)
    with ExitStack() as stack:
        scored_with = None
        if precision == "fp16" and backend == "onnxruntime":
            scored_with = (stack.enter_context(rounding_twin_of(opened)), "fp32")
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
            scored_with=scored_with,
        )
    for line in report.warnings:
        log(f"warning: {line}")
    if as_json:
        echo_json({"bundle": str(bundle), "precision": precision, "classes": report.to_json()})
        return
    click.echo(report.table())
    click.echo(f"written into {bundle}")


@command.command(name="scene")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--camera", required=True, help="The camera as it will work, e.g. realsense:, or folder:DIR.")
@click.option("--frames", default=40, show_default=True, type=click.IntRange(2, 1000), help="Frames to look at.")
@click.option(
    "--skip", default=10, show_default=True, type=click.IntRange(min=0), help="First frames of a live camera."
)
@click.option(
    "--class", "--class-name", "class_name", default=None, help="Class of a bundle to write for; all by default."
)
@click.option(
    "--roi", "rois", multiple=True, metavar="X0,Y0,X1,Y1", help="Region in pixels; may be given several times."
)
@click.option(
    "--defect-mm", default=0.0, type=click.FloatRange(min=0), help="Smallest defect that must show: sets tiles."
)
@click.option("--overlap", default=0.2, show_default=True, type=click.FloatRange(0, 0.5), help="Of neighbouring tiles.")
@click.option("--part-height-mm", default=0.0, type=click.FloatRange(min=0), help="Tallest part. Default: as seen.")
@click.option("--picture", default=None, type=click.Path(path_type=Path), help="PNG to write besides.")
@click.option("--force", is_flag=True, help="Replace a scene that is there.")
@cli_errors
def scene(
    target: Path,
    camera: str,
    frames: int,
    skip: int,
    class_name: str | None,
    rois: tuple[str, ...],
    defect_mm: float,
    overlap: float,
    part_height_mm: float,
    picture: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the scene of a fixed camera: plane, region, tiles, working distance, belt, noise, smallest defect.

    TARGET is a folder of recordings (roi.png, scene.json and scene.png are written there, and fit and export take them
    in) or a bundle (the scene goes into it). Best with an empty scene; parts may be in it as long as the plane shows.

    \b
    Example:
      edge-ad calibrate scene recordings --camera realsense:
      edge-ad run BUNDLE --camera realsense:
    """
    from edge_ad.calibration.scene import SceneOptions, calibrate_scene
    from edge_ad.calibration.scene_files import find_roi, open_target, sample_size, write_scene

    place = open_target(target, class_name, force=force)
    options = SceneOptions(sample_size(place), defect_mm, overlap, part_height_mm)
    taken = _take(camera, frames, skip)
    report = calibrate_scene(taken, options, find_roi(place, rois, taken[0].shape), camera)
    written = write_scene(place, report, picture)
    for warning in report.warnings:
        log(f"warning: {warning}")
    if as_json:
        setup = {k: v for k, v in report.setup.to_json().items() if k != "seen"}
        echo_json({"target": str(target), "written": written, "scene": setup, "warnings": report.warnings})
        return
    for line in report.lines():
        click.echo(line)
    click.echo(f"written: {', '.join(written)}")


def _take(camera: str, count: int, skip: int) -> list[Frame]:
    """Frames of a camera that came well; those that did not are told."""
    from edge_ad.errors import EdgeAdError
    from edge_ad.frame import Frame
    from edge_ad.sensors.capture import open_source

    good: list[Frame] = []
    bad: list[str] = []
    with open_source(camera, say=log) as source:
        left = skip if getattr(source, "live", False) else 0
        for item in progress(source, count, "frames"):
            left -= 1
            if left >= 0:
                continue
            if isinstance(item, Frame) and not item.health:
                good.append(item)
            else:
                bad.append("; ".join(item.health) if isinstance(item, Frame) else item.error)
            if len(good) == count or len(bad) > count:
                break
    if bad:
        log(f"warning: {len(bad)} frames left out; the first: {bad[0]}")
    if len(good) < 2:
        why = f"; the first of the others: {bad[0]}" if bad else ""
        raise EdgeAdError(f"{camera} gave {len(good)} good frames{why}", "at least 2", "run: edge-ad cameras")
    return good


command.add_command(int8)
command.add_command(fp16)
