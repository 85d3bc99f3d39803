"""``edge-ad verify``: the same frames through two backends or precisions, and where they part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_ad.cli import options
from edge_ad.cli.common import cli_errors, echo_json, log, progress

if TYPE_CHECKING:
    from edge_ad.bundle import Bundle
    from edge_ad.engines.verify import VerifyReport
    from edge_ad.export.bisect import Bisection
    from edge_ad.frame import Frame


@click.command(name="verify")
@options.bundle
@click.option("--backend", required=True, help="The one under test: onnxruntime, openvino, tensorrt or tensorrt-rtx.")
@click.option("--precision", default="fp32", show_default=True, help="Its precision.")
@click.option("--against", default="onnxruntime", show_default=True, help="The one that it is held against.")
@click.option("--against-precision", default="fp32", show_default=True, help="Its precision.")
@click.option("--data", type=click.Path(path_type=Path), help="Frames: a folder of parts. Default: the golden frames.")
@options.layout
@click.option("--camera", help="Frames: a camera (see edge-ad cameras) instead of a folder.")
@click.option("--class", "class_name", help="Class of every part. Default: what the source knows.")
@click.option("--frames", default=16, show_default=True, type=click.IntRange(min=1), help="So many frames at most.")
@click.option("--variant", default="base", show_default=True, help="Variant of the bundle's model.")
@click.option("--bisect", "inside", help="Look inside this graph, or 'auto': the first that differs. Needs onnx.")
@click.option("--threads", default=0, type=click.IntRange(min=0), help="Threads of the CPU backends; 0: one a core.")
@cli_errors
def command(
    bundle: Path,
    backend: str,
    precision: str,
    against: str,
    against_precision: str,
    data: Path | None,
    layout: str,
    camera: str | None,
    class_name: str | None,
    frames: int,
    variant: str,
    inside: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Send the same frames through two backends or precisions of BUNDLE and compare every stage.

    Ends with exit code 1 when a decision changes, or a graph differs by more than the precisions explain.

    \b
    Example:
      edge-ad verify demo/bundle --backend onnxruntime --precision int8 --data demo/parts
    """
    from edge_ad.bundle import open_bundle
    from edge_ad.engines.compare import GRAPHS
    from edge_ad.engines.verify import Side, verify
    from edge_ad.errors import EdgeAdError

    if data is not None and camera is not None:
        raise EdgeAdError("--data and --camera", "one of them")
    if inside not in (None, "auto", *GRAPHS):
        raise EdgeAdError(f"--bisect {inside}", f"auto, {', '.join(GRAPHS)}")
    opened = open_bundle(bundle).as_variant(variant)
    source = _frames(opened, data, layout, camera, class_name, frames)
    sides = Side(backend, precision), Side(against, against_precision)
    report = verify(opened, *sides, progress(source, None, "verify"), threads or None)
    graph = report.first_difference if inside == "auto" else inside
    found = None
    if graph:
        from edge_ad.export.bisect import bisect_graph

        found = bisect_graph(opened, report, graph)
    if as_json:
        echo_json({**report.to_dict(), "bisection": None if found is None else dataclasses.asdict(found)})
    else:
        _print(report, found)
    for name, reason in report.skipped:
        log(f"warning: {name} is left out: {reason}")
    faults, limits = [], "no graph that differs"
    if report.changed:
        faults.append(f"the decision changes on {', '.join(p.name for p in report.changed)}")
    if report.first_difference:
        first = report.first_difference
        faults.append(f"graph {first} is the first that differs ({report.graph_errors[first]:.1e})")
        limits = f"graph {first} within {report.allowed_errors[first]:.1e}"
    if faults:
        raise EdgeAdError(
            f"{sides[0]} is not {sides[1]}: {'; '.join(faults)}",
            f"equal decisions, and {limits}",
            "" if found else "look inside with --bisect auto",
        )


def _frames(
    bundle: Bundle, data: Path | None, layout: str, camera: str | None, class_name: str | None, count: int
) -> Iterator[tuple[Frame, str]]:
    """(frame, class) of the source, spread over the classes of a folder."""
    from edge_ad.errors import EdgeAdError

    def known(frame: Frame, name: str | None) -> tuple[Frame, str]:
        only = bundle.class_names[0] if len(bundle.class_names) == 1 else None
        chosen = class_name or (name if name in bundle.class_names else None) or only
        if chosen is None:
            raise EdgeAdError(
                f"{frame.name}: class {name or 'unknown'}",
                f"one of {', '.join(bundle.class_names)}",
                "name it: --class",
            )
        return frame, chosen

    if data is not None:
        from itertools import chain, zip_longest

        from edge_ad.data.dataset import open_dataset

        items = open_dataset(data, layout, class_name).items
        wanted = [i for i in items if i.split == "test"] or list(items)
        queues = [[i for i in wanted if i.class_name == c] for c in dict.fromkeys(i.class_name for i in wanted)]
        mixed = [i for i in chain.from_iterable(zip_longest(*queues)) if i is not None]
        return (known(item.frame(), item.class_name) for item in mixed[:count])
    if camera is not None:
        return (known(frame, frame.class_name) for frame in _from_camera(camera, count))
    return (known(golden.frame, golden.class_name) for golden in bundle.golden()[:count])


def _from_camera(uri: str, count: int) -> Iterator[Frame]:
    from edge_ad.sensors import BrokenFrame, open_camera

    taken = 0
    with open_camera(uri) as source:
        for frame in source:
            if isinstance(frame, BrokenFrame):
                log(f"warning: {frame.name}: {frame.error}")
                continue
            yield frame
            taken += 1
            if taken == count:
                return


def _print(report: VerifyReport, found: Bisection | None) -> None:
    click.echo(f"{report.found} against {report.expected}, {len(report.parts)} parts")
    click.echo(
        f"{'part':<26} {'correlation':>11} {'worst pixel':>11} {'mask IoU':>8} {'score':>9} {'expected':>9}  decision"
    )
    for p in report.parts:
        iou = "-" if p.mask_iou is None else f"{p.mask_iou:.3f}"
        decision = p.decision or "no limit"
        if p.decision != p.expected_decision:
            decision = f"{p.expected_decision} -> {p.decision}"
        click.echo(
            f"{p.name[-26:]:<26} {p.map_correlation:>11.6f} {p.worst_pixel:>11.1e} {iou:>8} {p.score:>9.4f} "
            f"{p.expected_score:>9.4f}  {decision}"
        )
    click.echo(f"\n{'graph':<8} {'relative error':>14} {'allowed':>8}   each graph on the same inputs")
    for graph, error in report.graph_errors.items():
        mark = "   <- first difference" if graph == report.first_difference else ""
        click.echo(f"{graph:<8} {error:>14.1e} {report.allowed_errors[graph]:>8.1e}{mark}")
    if found is None:
        return
    click.echo(f"\ninside {found.graph}: {len(found.probes)} of {found.tensors} common tensors looked at")
    for probe in found.probes:
        mark = "   <- first difference" if probe == found.first else ""
        click.echo(f"  {probe.error:>9.1e}  {probe.operator:<20} {probe.node or probe.tensor}{mark}")
    if found.first is None:
        click.echo("  none differs by more than is allowed while it is an output; a fault of a fusion hides from this")
