"""``edge-ad record``: a camera's frames as training data, or raw."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from edge_ad.cli.common import cli_errors, echo_json, log
from edge_ad.cli.until_signal import UntilSignal


@click.command(name="record")
@click.option("--camera", required=True, help="Where frames come from (see edge-ad cameras).")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of recordings, to be made or added to.")
@click.option("--label", default="good", show_default=True, help="good, or the kind of defect (with --split test).")
@click.option("--class", "class_name", default=None, help="Class of the parts. Default: what the source knows.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default=None,
    help="Default: train for good parts, test for defects.",
)
@click.option("--frames", default=0, type=click.IntRange(min=0), help="Stop after so many; 0: at Ctrl-C or the end.")
@click.option(
    "--trigger",
    default="every",
    show_default=True,
    help="every[:N], part (fully in view and still), stdin:, http:PORT, mqtt:HOST/TOPIC.",
)
@click.option("--interval", default=0.0, type=click.FloatRange(min=0), help="Seconds between two kept frames.")
@click.option(
    "--raw", type=click.Path(path_type=Path), help="Write the streams as they are: FILE.mcap, or FILE.db3 (realsense:)."
)
@cli_errors
def command(
    camera: str,
    out: Path | None,
    label: str,
    class_name: str | None,
    split: str | None,
    frames: int,
    trigger: str,
    interval: float,
    raw: Path | None,
    as_json: bool,
) -> None:
    """Record what a camera sees: OUT/CLASS/SPLIT/LABEL/NNNNN.color.png, .depth.png (16 bit), .json and a camera.json,
    the layout that fit, calibrate, evaluate and --camera folder: read.

    A recording stopped in any way, by a kill too, holds every finished frame and no half one; the next one in the same
    folder goes on numbering. Frames that the camera cannot vouch for (old or unpaired) are left out and counted.

    \b
    Example:
      edge-ad record --camera realsense: --out recordings --class bracket --frames 30 --trigger part
    """
    from edge_ad.errors import EdgeAdError
    from edge_ad.sensors.capture import WatchedCamera, open_source
    from edge_ad.sensors.recorder import FolderSink, Sink, record
    from edge_ad.sensors.triggers import TriggeredCamera, open_trigger

    if out is None and raw is None:
        raise EdgeAdError("nowhere to write to", "--out DIR, --raw FILE or both")
    if raw is not None:
        camera = _raw_camera(camera, raw)
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if out is not None:
            sinks.append(FolderSink(out, class_name, split or ("train" if label == "good" else "test"), label))
        if raw is not None and raw.suffix == ".mcap":
            from edge_ad.sensors.mcap_writer import McapWriter

            sinks.append(stack.enter_context(McapWriter(raw, class_name)))
        stop = stack.enter_context(UntilSignal())
        # The SDK writes a raw recording itself: its camera must not be started anew while that goes on.
        opened = open_source(camera, watch=raw is None, say=log, stop=stop)
        source = stack.enter_context(TriggeredCamera(opened, open_trigger(trigger, None, log), stop))
        log(f"recording from {source.describe()}; Ctrl-C ends it")
        report = record(
            source,
            lambda frame: sinks or [_Named()],
            count=frames,
            interval_s=interval,
            stop=stop,
            tell=lambda name: log(f"wrote {name}"),
        )
        missed = int(getattr(opened, "missed", 0))
        health = opened.health if isinstance(opened, WatchedCamera) else None
    if not report.written:
        why = f"; the first reason: {next(iter(report.skipped))}" if report.skipped else ""
        raise EdgeAdError(f"{camera} gave no frame to record{why}", "at least one")
    where = " and ".join(str(p) for p in (out, raw) if p is not None)
    skipped = sum(report.skipped.values())
    if as_json:
        told = {"frames": len(report.written), "skipped": dict(report.skipped), "missed": missed}
        told["camera"] = None if health is None else health.to_json()
        echo_json({**told, "seconds": report.seconds, "out": out, "raw": raw, "names": report.written})
    if health is not None and health.summary():
        log(health.summary())
    for reason, times in report.skipped.items():
        log(f"skipped {times}: {reason}")
    log(f"{len(report.written)} frames in {report.seconds:.1f} s to {where}; {skipped} skipped, {missed} missed")


class _Named:
    """Stands for a recording that the SDK itself writes."""

    def write(self, frame: object) -> str:
        return str(getattr(frame, "name", ""))


def _raw_camera(camera: str, raw: Path) -> str:
    """The camera's URI, told to write ``raw`` where its own SDK does that. Raises EdgeAdError."""
    from edge_ad.errors import EdgeAdError
    from edge_ad.sensors import SCHEMES
    from edge_ad.sensors.uri import Uri, parse_uri

    if raw.exists():
        raise EdgeAdError(f"{raw} exists already", "a new file")
    if raw.suffix == ".mcap":
        return camera
    if raw.suffix != ".db3":
        raise EdgeAdError(f"--raw {raw}", "FILE.mcap (any camera) or FILE.db3 (realsense:)")
    uri = parse_uri(camera, tuple(SCHEMES))
    if uri.scheme != "realsense" or Path(uri.path).suffix in (".bag", ".db3"):
        raise EdgeAdError(f"--raw {raw} from {camera}", "a RealSense camera", "name a FILE.mcap for other sources")
    return str(Uri(uri.scheme, uri.path, {**uri.options, "record": str(raw)}))
