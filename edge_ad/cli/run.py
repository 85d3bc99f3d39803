"""``edge-ad run``: frames in, masks out."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log
from edge_ad.cli.until_signal import UntilSignal

if TYPE_CHECKING:
    from edge_ad.frame import Result
    from edge_ad.sensors import Camera


@click.command(name="run")
@options.bundle
@click.option(
    "--camera", required=True, help="Where frames come from: folder:DIR, synthetic:CLASS (see edge-ad cameras)."
)
@click.option(
    "--output", "outputs", multiple=True, help="Where results go: folder:DIR, window:. May be given more than once."
)
@click.option(
    "--class", "class_name", default=None, help="Class of every part, or auto. Default: what the source knows."
)
@options.tuned_point
@click.option("--on-device", is_flag=True, help="All between the images and the map on the GPU (docs/cuda-runtime.md).")
@click.option(
    "--latency/--throughput",
    "low_latency",
    default=True,
    show_default=True,
    help="One frame in flight, or all cores busy with several.",
)
@click.option("--workers", default=0, type=click.IntRange(min=0), help="Frames at once in --throughput; 0: one a core.")
@click.option(
    "--drop/--no-drop", default=None, help="Whether the newest frame replaces one that waits. Default: live cameras."
)
@click.option(
    "--trigger", default="every", show_default=True, help="every[:N], part, stdin:, http:PORT, mqtt:HOST/TOPIC."
)
@click.option(
    "--watchdog/--no-watchdog", default=True, show_default=True, help="A live camera in its own, watched process."
)
@click.option(
    "--stall-timeout", default=1.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds without a frame."
)
@click.option("--record-results", type=click.Path(path_type=Path), help="Write results down, for --expect-results.")
@click.option("--expect-results", type=click.Path(path_type=Path), help="Fail on the first result that differs.")
@click.option("--frames", default=0, type=click.IntRange(min=0), help="Stop after so many; 0: when the source ends.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Threads of the backend; 0: by the mode.")
@cli_errors
def command(
    bundle: Path,
    camera: str,
    outputs: tuple[str, ...],
    class_name: str | None,
    backend: str | None,
    precision: str | None,
    variant: str | None,
    score_stride: int | None,
    on_device: bool,
    low_latency: bool,
    workers: int,
    drop: bool | None,
    trigger: str,
    watchdog: bool,
    stall_timeout: float,
    record_results: Path | None,
    expect_results: Path | None,
    frames: int,
    threads: int,
    as_json: bool,
) -> None:
    """Inspect the frames of a camera with BUNDLE: one JSON line a frame on stdout, pictures where --output says.

    A frame that cannot be inspected is reported as `decision: invalid` with the reason, and the run goes on. With
    --json one summary is printed at the end instead of the lines.

    \b
    Example:
      edge-ad run demo/bundle --camera synthetic:gear --output folder:results
    """
    from edge_ad.bundle import Bundle
    from edge_ad.bundle.manifest import seal
    from edge_ad.errors import EdgeAdError
    from edge_ad.runtime.point import choose_point, point_lines
    from edge_ad.sensors.capture import WatchedCamera, WatchOptions, is_live, open_source

    opened = Bundle.open(bundle)
    point = choose_point(opened, variant, score_stride, precision, backend)
    mode = "latency" if low_latency else "throughput"
    counts: Counter[str] = Counter()
    unread: list[str] = []  # why frames were not scored at all
    total_ms: list[float] = []
    latency_ms: list[float] = []
    with ExitStack() as stack:
        ended = UntilSignal()
        camera_in_use = open_source(camera, WatchOptions(stall_s=stall_timeout), watch=watchdog, say=log, stop=ended)
        watched = isinstance(camera_in_use, WatchedCamera)
        if watched:  # before the model: a camera that is not there is told at once
            stack.enter_context(camera_in_use)
        # Only now: these take longer to import than a missing camera takes to be told.
        from edge_ad.outputs import open_output
        from edge_ad.outputs.regression import ExpectResults, RecordResults
        from edge_ad.runtime.load import load_detector
        from edge_ad.runtime.pipeline import Pipeline, plan, threads_for
        from edge_ad.sensors.triggers import TriggeredCamera, open_trigger

        detector = load_detector(
            opened,
            point.backend,
            point.precision,
            threads=threads or threads_for(mode, workers),
            class_name=class_name,
            variant=point.variant,
            stride=point.stride,
            on_device=on_device,
        )
        for line in point_lines(opened, point):
            log(line)
        source: Camera = camera_in_use if watched else stack.enter_context(camera_in_use)
        if trigger != "every":
            chooser = open_trigger(trigger, detector.preprocess.scene_of(class_name or _only(detector.classes)), log)
            stack.callback(chooser.close)
            chooser.start()
            source = TriggeredCamera(source, chooser, ended)
        # Windows first: where there is no display nothing else has been made yet.
        order = sorted(outputs, key=lambda uri: not uri.startswith("window:"))
        sinks = [stack.enter_context(open_output(uri)) for uri in order]
        settings: dict[str, Any] = {"backend": point.backend, "precision": point.precision, "variant": point.variant}
        settings |= {"score_stride": point.stride, "bundle": seal(opened.manifest.to_dict())["digest"]}
        if record_results is not None:
            sinks.append(stack.enter_context(RecordResults(record_results, settings)))
        expected = None if expect_results is None else ExpectResults(expect_results, settings)
        sinks += [] if expected is None else [expected]
        stack.enter_context(ended)
        started = time.perf_counter()
        # A frame that a trigger chose is a part: none of those is given up for a newer one unless asked.
        live = is_live(camera) and trigger == "every" if drop is None else drop
        pipeline = stack.enter_context(
            Pipeline(
                source,
                plan(detector, mode, workers),
                drop=live,
                in_flight=1 if low_latency else 0,
                stop=ended,
            )
        )
        for number, delivery in enumerate(pipeline, start=1):
            result = _broken(delivery.frame) if delivery.result is None else delivery.result
            if delivery.result is not None:
                total_ms.append(result.times_ms["total"])
                latency_ms.append(delivery.latency_ms)
            counts[result.decision] += 1
            if result.map is None:
                unread += result.reasons[:1]
            for sink in sinks:
                sink.write(delivery.frame if delivery.result is not None else None, result)
            if not as_json:
                click.echo(json.dumps(result.to_json(), allow_nan=False))
            if number == frames or any(sink.closed for sink in sinks):
                break
        dropped = pipeline.counts.dropped
        agreed = None if expected is None else expected.finish()
        health = camera_in_use.health if isinstance(camera_in_use, WatchedCamera) else None
    seconds = time.perf_counter() - started
    done = sum(counts.values())
    if not counts:
        raise EdgeAdError(f"{camera} gave no frame", "at least one")
    if len(unread) == done:
        raise EdgeAdError(f"none of the {done} frames of {camera} could be inspected; the first: {unread[0]}")
    median = statistics.median(total_ms) if total_ms else float("nan")
    if as_json:
        echo_json(
            {
                "frames": done,
                "dropped": dropped,
                "decisions": dict(counts),
                "seconds": seconds,
                "frames_per_second": done / seconds,
                "median_ms": median,
                "median_latency_ms": statistics.median(latency_ms) if latency_ms else None,
                "mode": mode,
                "point": {k: v for k, v in point.to_dict().items() if k != "measured"},
                "outputs": list(outputs),
                "camera": None if health is None else health.to_json(),
                "passed_by": getattr(source, "passed", 0),
                "agreed": agreed,
            }
        )
    told = ", ".join(f"{counts[d]} {d}" for d in ("normal", "anomalous", "invalid") if counts[d])
    if agreed is not None:
        log(f"all {agreed} results agree with {expect_results}")
    if health is not None and health.summary():
        log(health.summary())
    lost = f"; {dropped} dropped for newer ones" if live else ""
    log(f"{done} frames in {seconds:.1f} s: {told}{lost}; median {median:.0f} ms a frame in the detector ({mode})")


def _only(classes: tuple[str, ...]) -> str:
    return classes[0] if len(classes) == 1 else "auto"


def _broken(frame: object) -> Result:
    from edge_ad.frame import Result
    from edge_ad.sensors import BrokenFrame

    assert isinstance(frame, BrokenFrame)
    nan = float("nan")
    return Result(
        "invalid",
        "degraded",
        (str(frame.error),),
        "",
        nan,
        nan,
        name=frame.name,
        sequence=frame.sequence,
        source=frame.source,
    )
