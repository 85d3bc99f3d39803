"""``edge-ad run``: frames in, masks out."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli.common import cli_errors, echo_json, log

if TYPE_CHECKING:
    from edge_ad.frame import Result


@click.command(name="run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--camera", required=True, help="Where frames come from: folder:DIR, synthetic:CLASS (see edge-ad cameras)."
)
@click.option(
    "--output", "outputs", multiple=True, help="Where results go: folder:DIR, window:. May be given more than once."
)
@click.option(
    "--class", "class_name", default=None, help="Class of every part, or auto. Default: what the source knows."
)
@click.option("--backend", default="onnxruntime", show_default=True, help="onnxruntime, tensorrt or tensorrt-rtx.")
@click.option("--precision", default="fp32", show_default=True, help="A precision that the bundle holds.")
@click.option("--frames", default=0, type=click.IntRange(min=0), help="Stop after so many; 0: when the source ends.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Threads of the backend; 0: one a core.")
@cli_errors
def command(
    bundle: Path,
    camera: str,
    outputs: tuple[str, ...],
    class_name: str | None,
    backend: str,
    precision: str,
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
    from edge_ad.errors import EdgeAdError
    from edge_ad.outputs import open_output
    from edge_ad.runtime.detector import load_detector
    from edge_ad.sensors import BrokenFrame, open_camera

    detector = load_detector(bundle, backend, precision, threads=threads or None, class_name=class_name)
    counts: Counter[str] = Counter()
    unread: list[str] = []  # why frames were not scored at all
    total_ms: list[float] = []
    started = time.perf_counter()
    with ExitStack() as stack:
        source = stack.enter_context(open_camera(camera))
        # Windows first: where there is no display nothing else has been made yet.
        order = sorted(outputs, key=lambda uri: not uri.startswith("window:"))
        sinks = [stack.enter_context(open_output(uri)) for uri in order]
        ended = stack.enter_context(_until_signal())
        for number, frame in enumerate(source, start=1):
            if isinstance(frame, BrokenFrame):
                shown, result = None, _broken(frame)
            else:
                shown, result = frame, detector(frame)
                total_ms.append(result.times_ms["total"])
            counts[result.decision] += 1
            if result.map is None:
                unread += result.reasons[:1]
            for sink in sinks:
                sink.write(shown, result)
            if not as_json:
                click.echo(json.dumps(result.to_json(), allow_nan=False))
            if number == frames or ended or any(sink.closed for sink in sinks):
                break
    seconds = time.perf_counter() - started
    if not counts:
        raise EdgeAdError(f"{camera} gave no frame", "at least one")
    if len(unread) == sum(counts.values()):
        raise EdgeAdError(f"none of the {len(unread)} frames of {camera} could be inspected; the first: {unread[0]}")
    total_ms.sort()
    median = total_ms[len(total_ms) // 2] if total_ms else float("nan")
    if as_json:
        echo_json(
            {
                "frames": sum(counts.values()),
                "decisions": dict(counts),
                "seconds": seconds,
                "median_ms": median,
                "outputs": list(outputs),
            }
        )
    told = ", ".join(f"{counts[d]} {d}" for d in ("normal", "anomalous", "invalid") if counts[d])
    log(f"{sum(counts.values())} frames in {seconds:.1f} s: {told}; median {median:.0f} ms a frame in the detector")


@contextmanager
def _until_signal() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C or SIGTERM: the frame in work is finished and the summary printed."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
