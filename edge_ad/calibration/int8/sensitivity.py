"""What each block costs in INT8, in the task's own metrics, and which must stay FP16. Needs onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.observe import layers_of
from edge_ad.calibration.int8.outcome import Outcome
from edge_ad.calibration.int8.probe import Candidate, Probe
from edge_ad.calibration.int8.table import CalibrationTable
from edge_ad.data.dataset import Item
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import base_graphs
from edge_ad.parallel import run_parallel

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
Block = tuple[str, str]


@dataclass(frozen=True)
class BlockCost:
    """One block alone in INT8, all else float32. drop : points lost; layers : how many it has; kept : left in FP16."""

    graph: str
    block: str
    layers: int
    drop: float
    outcome: Outcome
    kept: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """base : float32. everything : all blocks in INT8. blocks : the costliest first. final : after the worst were
    left out.

    parts : how many were scored. max_drop : what was asked for, points.
    """

    base: Outcome
    everything: Outcome
    blocks: tuple[BlockCost, ...]
    final: Outcome
    max_drop: float
    parts: int

    @property
    def left_out(self) -> tuple[Block, ...]:
        """(graph, block) of those that stay FP16."""
        return tuple((b.graph, b.block) for b in self.blocks if b.kept)

    def table(self) -> str:
        """For the terminal."""
        labelled = self.base.labelled
        head = ("I-AUROC", "AUPRO@30") if labelled else ("rejects", "")
        width = max([24, *(len(f"{b.graph} {b.block}") for b in self.blocks)])
        lines = [
            f"{'block alone in INT8':{width}} {'layers':>6} {'drop':>7} {head[0]:>8} {head[1]:>8} {'map corr.':>9}"
        ]
        rows = [(f"{b.graph} {b.block}", b.layers, b.drop, b.outcome, "  FP16" if b.kept else "") for b in self.blocks]
        total = sum(b.layers for b in self.blocks)
        rows.append(("all in INT8", total, self.everything.drop(self.base), self.everything, ""))
        if self.left_out:
            inside = sum(b.layers for b in self.blocks if not b.kept)
            rows.append(
                (f"{len(self.left_out)} blocks left in FP16", inside, self.final.drop(self.base), self.final, "")
            )
        for name, layers, drop, o, mark in rows:
            first = o.i_auroc if labelled else o.false_rejects
            cells = f"{_points(first)} {_points(o.aupro_30) if labelled else '':>8}"
            lines.append(f"{name:{width}} {layers:6d} {drop:7.3f} {cells} {o.correlation:9.5f}{mark}")
        b = self.base
        base = f"I-AUROC {_points(b.i_auroc).strip()}, AUPRO@30 % {_points(b.aupro_30).strip()}" if labelled else ""
        what = (
            "points of I-AUROC and AUPRO@30 %, the worse" if labelled else "points of map correlation or false rejects"
        )
        lines.append(
            f"float32: {base}" if base else f"float32: {_points(b.false_rejects).strip()} % of the good parts rejected"
        )
        lines.append(f"drop: {what}, over {self.parts} parts; allowed {self.max_drop:g}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "parts": self.parts,
            "max_drop": self.max_drop,
            "metric": "i_auroc, aupro_30" if self.base.labelled else "map correlation, false rejects",
            "float32": self.base.to_json(),
            "all_int8": {**self.everything.to_json(), "drop": self.everything.drop(self.base)},
            "final": {**self.final.to_json(), "drop": self.final.drop(self.base)},
            "blocks": [
                {"graph": b.graph, "block": b.block, "layers": b.layers, "drop": b.drop, "left_in_fp16": b.kept}
                | b.outcome.to_json()
                for b in self.blocks
            ],
        }


def _points(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{100 * value:8.2f}"


def blocks_of(bundle: Bundle) -> dict[tuple[str, str], str]:
    """(graph, layer) -> block."""
    return {(g, layer.name): layer.group for g, layers in layers_of(base_graphs(bundle)).items() for layer in layers}


def measure(
    bundle: Bundle,
    table: CalibrationTable,
    items: Sequence[Item],
    keep: Mapping[str, frozenset[str]],
    max_drop: float,
    *,
    jobs: int = 0,
    track: Track | None = None,
) -> tuple[Sensitivity, CalibrationTable]:
    """Measure every block alone, then leave the worst in FP16, one by one, until the drop is met.

    Parameters
    ----------
    items : parts to measure on. keep : graph -> nodes that stay FP32 (beside INT8 the rest runs in FP16).
    max_drop : points of the worse of I-AUROC and AUPRO@30 %; with good parts only, of map correlation and false
    rejects.

    Returns
    -------
    The report, and the table with those blocks marked ``fp16``.

    Raises
    ------
    EdgeAdError
        No part could be scored, or no block can be INT8 within the drop.
    """
    group = blocks_of(bundle)
    blocks: dict[Block, list[str]] = {}
    for row in table.rows:
        if row.mode == "int8":
            blocks.setdefault((row.graph, group[row.graph, row.layer]), []).append(row.layer)
    probe = Probe(bundle.path, items, bundle.variant, bundle.stride)
    order = list(blocks)
    alone: list[Candidate | None] = [Candidate({g: {k: table.ranges(g)[k] for k in blocks[g, b]}}) for g, b in order]
    candidates: list[Candidate | None] = [None, _whole(table, keep), *alone]
    results = run_parallel(probe, candidates, processes=jobs)
    outcomes = list(track(results, len(candidates), "sensitivity") if track else results)
    base, everything = outcomes[0], outcomes[1]
    costs = [BlockCost(g, b, len(blocks[g, b]), o.drop(base), o) for (g, b), o in zip(order, outcomes[2:], strict=True)]
    # Drops of single parts are coarse; where they are equal (often 0) the map's error decides.
    costs.sort(key=lambda c: (round(c.drop, 3), c.outcome.map_error), reverse=True)
    out: list[Block] = []
    final, chosen = everything, table
    while final.drop(base) > max_drop and len(out) < len(costs):
        out.append((costs[len(out)].graph, costs[len(out)].block))
        chosen = table.left(group, out)
        step = run_parallel(probe, [_whole(chosen, keep)], processes=1)
        final = next(iter(track(step, 1, f"{len(out)} left in FP16") if track else step))
    if len(out) == len(costs) and costs:
        raise EdgeAdError(
            f"no block can run in INT8 within a drop of {max_drop:g} points (all of them: {everything.drop(base):.2f})",
            "a drop that at least one block meets",
            "allow more with --max-drop, try another --method, or use --precision fp16",
        )
    marked = tuple(BlockCost(c.graph, c.block, c.layers, c.drop, c.outcome, (c.graph, c.block) in out) for c in costs)
    return Sensitivity(base, everything, marked, final, max_drop, base.parts), chosen


def _whole(table: CalibrationTable, keep: Mapping[str, frozenset[str]]) -> Candidate:
    return Candidate({name: table.ranges(name) for name in table.graphs}, keep)
