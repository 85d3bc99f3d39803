"""What the layers read on real frames: the input of every layer that INT8 is for, as a histogram. Needs onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from edge_ad.calibration.int8.histogram import Histogram
from edge_ad.calibration.int8.methods import PERCENTILE, choose_range
from edge_ad.calibration.int8.table import CalibrationTable, Row
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.replay import Parts, Replay
from edge_ad.export.precision.roles import Layer, quantisable
from edge_ad.export.precision.twin import with_outputs

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
Histograms = dict[tuple[str, str], Histogram]


def layers_of(models: Mapping[str, Model]) -> dict[str, list[Layer]]:
    """The layers that INT8 is for, a graph; one of several uses of the same weight."""
    out: dict[str, list[Layer]] = {}
    for name, model in models.items():
        found = {layer.name: layer for layer in reversed(quantisable(Graph(model, name)))}
        out[name] = list(reversed(found.values()))
    return out


def observe(replay: Replay, models: Mapping[str, Model], samples: Parts, track: Track | None = None) -> Histograms:
    """(graph, layer) -> histogram of what the samples put into it, all its uses together.

    Raises
    ------
    EdgeAdError
        No sample could be scored, or an activation is not finite.
    """
    if not samples:
        raise EdgeAdError("none of the calibration frames could be scored", "frames that show a part")
    histograms: Histograms = {}
    sessions = {}
    for name, model in models.items():
        graph = Graph(model, name)
        readers: dict[str, list[str]] = {}
        for layer in quantisable(graph):
            histograms[name, layer.name] = Histogram()
            readers.setdefault(layer.data, []).append(layer.name)

        def watch(
            tensor: str, values: NDArray[Any], graph: str = name, readers: Mapping[str, list[str]] = readers
        ) -> None:
            for layer in readers.get(tensor, ()):
                histograms[graph, layer].add(values)

        sessions[name] = replay.session(name, with_outputs(graph.model, list(readers), name), watch)
    done = replay.run(samples, sessions)
    for _ in track(done, len(samples), "calibrate") if track else done:
        pass
    return histograms


def make_table(
    models: Mapping[str, Model],
    histograms: Histograms,
    method: str,
    digests: Mapping[str, str],
    percentile: float = PERCENTILE,
    about: Mapping[str, str] | None = None,
) -> CalibrationTable:
    """The table by one method. A layer whose input was always 0 stays FP16: its range is unknown.

    digests : graph -> SHA-256 of its float32 file in the bundle.
    """
    rows = []
    for name, layers in layers_of(models).items():
        for layer in layers:
            histogram = histograms[name, layer.name]
            top = choose_range(histogram, method, percentile)
            # Rounded as the file shows it, so that a table that was read back gives the same graph.
            numbers = float(f"{top:.6g}"), float(f"{histogram.peak:.6g}")
            rows.append(Row(name, layer.name, "int8" if top > 0 else "fp16", *numbers))
    told = {"method": f"percentile {percentile:g}" if method == "percentile" else method, **(about or {})}
    return CalibrationTable(tuple(rows), told, digests)


def check_table(table: CalibrationTable, digests: Mapping[str, str], where: str) -> None:
    """Refuse a table of other graphs: its ranges mean nothing here."""
    for name, digest in digests.items():
        found = table.graphs.get(name, "none")
        if found != digest:
            raise EdgeAdError(
                f"{where} is for a graph {name} with SHA-256 {found[:12]}",
                f"{digest[:12]}..., the bundle's",
                "calibrate this bundle: edge-ad calibrate int8 BUNDLE --data DIR",
            )
