"""Which layers INT8 does not pay for: each measured alone on the calibration frames, the costliest left in FP16.

No labels are needed: what is measured is the map, and each graph by itself as the golden gate asks it. The layers
at which most of the error arises (narrow ones that see the raw points or pixels, heads whose outputs differ little)
hold few of the weights. Needs onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.calibration.int8.probe import Candidate, KnownPart, Probe
from edge_ad.calibration.int8.table import CalibrationTable, Row
from edge_ad.engines.compare import relative_error
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.roles import quantisable
from edge_ad.runtime.backends import Session
from edge_ad.runtime.scoring import bilinear_matrix, point_matrix

MAP_ERROR = 0.008
"""Root mean square difference of the maps that INT8 may make, relative to float32's root mean square."""
GRAPH_ERROR = 0.10
"""Relative error of each graph by itself; the golden gate allows more (edge_ad.engines.tolerances)."""
ROWS = 512
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
Layer = tuple[str, str]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Costs:
    """What INT8 does to the calibration frames. map : error of the map. graphs : graph -> its own relative error."""

    map: float
    graphs: Mapping[str, float]

    @property
    def worst_graph(self) -> float:
        """Largest error of a graph by itself."""
        return max(self.graphs.values(), default=0.0)

    def over(self) -> float:
        """How much too large the worst of them is; at most 1 where all are within bounds."""
        return max(self.map / MAP_ERROR, self.worst_graph / GRAPH_ERROR)


@dataclass(frozen=True)
class Spared:
    """layers : (graph, layer) -> its costs alone in INT8. before, after : all layers in INT8, and those that stayed."""

    layers: Mapping[Layer, Costs]
    left: tuple[Layer, ...]
    before: Costs
    after: Costs

    def table(self) -> str:
        """For the terminal: the layers that stay FP16, the costliest first."""
        width = max([24, *(len(f"{g} {name}") for g, name in self.left)])
        lines = [f"{'layer alone in INT8':{width}} {'map error':>9} {'graph error':>11}"]
        shown = sorted(self.left, key=lambda layer: self.layers[layer].over(), reverse=True)
        rows = [(f"{g} {name}", self.layers[g, name], "  FP16") for g, name in shown]
        rows.append(("every layer", self.before, ""))
        if self.left:
            rows.append((f"without these {len(self.left)}", self.after, ""))
        lines += [f"{name:{width}} {c.map:9.4f} {c.worst_graph:11.4f}{mark}" for name, c, mark in rows]
        lines.append(
            f"left in FP16 until the map's error is below {MAP_ERROR:g} and each graph's below {GRAPH_ERROR:g}"
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "map_error_allowed": MAP_ERROR,
            "graph_error_allowed": GRAPH_ERROR,
            "before": self.before.__dict__,
            "after": self.after.__dict__,
            "layers": [
                {"graph": g, "layer": name, "map_error": c.map, "graph_error": c.graphs[g]}
                | {"left_in_fp16": (g, name) in self.left}
                for (g, name), c in self.layers.items()
            ],
        }


class Alone:
    """Each graph by itself: its float32 inputs for a few parts, and what float32 makes of them."""

    def __init__(self, probe: Probe, parts: Sequence[tuple[KnownPart, str]]) -> None:
        detector = probe.replay.detector
        self._given: dict[str, list[Arrays]] = {"rgb": [], "points": [], "tokens": [], "score": []}
        own = {g: probe.replay.session(g, probe.models[g]) for g in self._given}
        for known, name in parts:
            points, sample = known.part.points, known.part.sample
            index = np.array([detector.classes.index(name)], np.int64)
            both: Arrays = {"rgb_tokens": known.rgb, "point_tokens": known.points, "class_index": index}
            both = {i.name: both[i.name] for i in own["tokens"].inputs}
            tables = own["tokens"].run(both)
            pixels = np.flatnonzero(sample.valid.ravel())
            rows = np.unique(np.linspace(0, len(pixels) - 1, ROWS).round().astype(np.int64))
            grid = int(round(np.sqrt(len(tables["rgb_table"]))))
            to_rgb = bilinear_matrix(grid, sample.valid.shape[0])[pixels[rows]]
            score = {
                "rgb_rows": to_rgb @ tables["rgb_table"],
                "point_rows": point_matrix(points, len(tables["point_table"]))[rows] @ tables["point_table"],
                "class_index": index,
            }
            self._given["rgb"].append({"image": sample.rgb[None]})
            self._given["points"].append({"groups": points.groups[None], "centers": points.centers[None]})
            self._given["tokens"].append(both)
            self._given["score"].append({i.name: score[i.name] for i in own["score"].inputs})
        self._wanted = {g: [own[g].run(given) for given in self._given[g]] for g in own}

    def error(self, graph: str, session: Session) -> float:
        """Worst relative error of a graph's outputs."""
        worst = 0.0
        for given, wanted in zip(self._given[graph], self._wanted[graph]):
            found = session.run(given)
            worst = max(worst, *(relative_error(found[name], value) for name, value in wanted.items()))
        return worst


def spare(probe: Probe, table: CalibrationTable, *, track: Track | None = None) -> tuple[Spared, CalibrationTable]:
    """Measure every layer alone; leave the costliest in FP16 until the map and each graph are within bounds.

    Parameters
    ----------
    probe : over a few good calibration frames. table : every layer with its range.

    Returns
    -------
    What was measured, and the table with those layers marked ``fp16``. A layer may stay in FP16 although it alone is
    cheap: where the sum of many small errors is too large.

    Raises
    ------
    EdgeAdError
        No layer is left.
    """
    alone = Alone(probe, probe.known)
    rows = [(r.graph, r.layer) for r in table.rows if r.mode == "int8"]
    weights = {layer: count for g in table.graphs for layer, count in _weights(probe.models[g], g)}

    def costs(chosen: CalibrationTable, graphs: Iterable[str]) -> Costs:
        candidate = Candidate({g: chosen.ranges(g) for g in graphs})
        sessions = probe.sessions(candidate)
        return Costs(
            probe.outcome_of(sessions).map_error,
            {g: alone.error(g, sessions[g]) if g in sessions else 0.0 for g in candidate.ranges},
        )

    def one(layer: Layer) -> tuple[Layer, Costs]:
        return layer, costs(_only(table, layer), (layer[0],))

    done = map(one, rows)
    inside = dict(track(done, len(rows), "layers") if track else done)
    found = dict(inside)
    before = after = costs(table, table.graphs)
    chosen = table
    while after.over() > 1 and inside:
        for layer in costliest(inside, after, weights):
            del inside[layer]
        chosen = _leave(table, [layer for layer in found if layer not in inside])
        after = costs(chosen, table.graphs)
    if not inside:
        raise EdgeAdError(
            f"no layer can run in INT8: with all of them the map is off by {before.map:.1%}, a graph by "
            f"{before.worst_graph:.1%}",
            f"ranges that leave less than {MAP_ERROR:.1%} and {GRAPH_ERROR:.0%}",
            "try another --method or more --frames, or force it with --every-layer",
        )
    return Spared(found, tuple(layer for layer in found if layer not in inside), before, after), chosen


def costliest(layers: Mapping[Layer, Costs], together: Costs, weights: Mapping[Layer, int]) -> list[Layer]:
    """Layers that cost most a weight, for the bound that is missed most: so many that they should bring it half way.

    layers : each alone. together : all of them at once. weights : how many each has; a small layer that stays FP16
    costs nothing. Half way (the root of the excess), as if squares added up: errors of one sign add up faster, so that
    leaving out what this says for the whole way would leave out too much. At least one.
    """
    over = {"": together.map / MAP_ERROR} | {g: e / GRAPH_ERROR for g, e in together.graphs.items()}
    which = max(over, key=lambda g: over[g])
    squares = {layer: (c.graphs.get(which, 0.0) if which else c.map) ** 2 for layer, c in layers.items()}
    total = rest = sum(squares.values())
    out: list[Layer] = []
    for layer in sorted(squares, key=lambda name: squares[name] / weights[name], reverse=True):
        if out and over[which] * rest <= total:
            break
        out.append(layer)
        rest -= squares[layer]
    return out


def _weights(model: Model, what: str) -> list[tuple[Layer, int]]:
    graph = Graph(model, what)
    return [((what, layer.name), graph.array(layer.weight).size) for layer in quantisable(graph)]


def _only(table: CalibrationTable, layer: Layer) -> CalibrationTable:
    return replace(table, rows=tuple(r for r in table.rows if (r.graph, r.layer) == layer))


def _leave(table: CalibrationTable, left: Sequence[Layer]) -> CalibrationTable:
    def mode(row: Row) -> Row:
        return replace(row, mode="fp16") if (row.graph, row.layer) in left else row

    return replace(table, rows=tuple(map(mode, table.rows)))
