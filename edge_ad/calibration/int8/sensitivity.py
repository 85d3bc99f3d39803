"""What each block costs in INT8, in the task's own metrics, and which must stay FP16. Needs onnx."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.observe import layers_of
from edge_ad.calibration.int8.outcome import Outcome
from edge_ad.calibration.int8.probe import Candidate, Probe
from edge_ad.calibration.int8.table import CalibrationTable
from edge_ad.data.dataset import Item
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import base_graphs

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
Block = tuple[str, str]
RANKED = 24
"""Parts a class on which each block is measured alone."""
NOISE, TELLING = 2.0, 0.05
"""Standard errors, and points, below which a drop ranks no block."""


@dataclass(frozen=True)
class BlockCost:
    """One block alone in INT8, all else float32. layers : how many it has. drop, error : points lost and their standard
    error. kept : left in FP16."""

    graph: str
    block: str
    layers: int
    drop: float
    outcome: Outcome
    kept: bool = False
    error: float = 0.0


@dataclass(frozen=True)
class Sensitivity:
    """base : float32. everything : all blocks in INT8. blocks : the costliest first. final : after the worst were
    left out.

    parts : how many were scored. max_drop : what was asked for, points. ranked : float32 on the parts on which the
    blocks were measured alone.
    """

    base: Outcome
    everything: Outcome
    blocks: tuple[BlockCost, ...]
    final: Outcome
    max_drop: float
    parts: int
    ranked: Outcome | None = None

    @property
    def left_out(self) -> tuple[Block, ...]:
        """(graph, block) of those that stay FP16."""
        return tuple((b.graph, b.block) for b in self.blocks if b.kept)

    def table(self) -> str:
        """For the terminal."""
        labelled = self.base.labelled
        head = ("I-AUROC", "AUPRO@30") if labelled else ("rejects", "")
        width = max([24, *(len(f"{b.graph} {b.block}") for b in self.blocks)])
        near = self.ranked or self.base
        inside = sum(b.layers for b in self.blocks if not b.kept)
        rows = [(f"{b.graph} {b.block}", b.layers, b.outcome, near, "  FP16" if b.kept else "") for b in self.blocks]
        rows.append(("all in INT8", sum(b.layers for b in self.blocks), self.everything, self.base, ""))
        if self.left_out:
            rows.append((f"{len(self.left_out)} blocks left in FP16", inside, self.final, self.base, ""))
        lines = [
            f"{'block alone in INT8':{width}} {'layers':>6} {'drop':>7} {'+-':>6} {head[0]:>8} {head[1]:>8} "
            f"{'map corr.':>9} {'map err.':>8}"
        ]
        for name, layers, o, base, mark in rows:
            drop, error = o.drop_and_error(base)
            cells = (
                f"{_points(o.i_auroc if labelled else o.false_rejects)} {_points(o.aupro_30) if labelled else '':>8}"
            )
            told = f"{drop:7.3f} {error:6.3f} {cells} {o.correlation:9.5f} {o.map_error:8.4f}"
            lines.append(f"{name:{width}} {layers:6d} {told}{mark}")
        what = "points of map correlation or false rejects"
        if labelled:
            what = "points of I-AUROC and AUPRO@30 %, the worse, with its standard error"
        lines += [_float32(b, over) for b, over in ((near, "blocks alone"), (self.base, "all")) if b.parts]
        lines.append(f"drop: {what}; all over {self.parts} parts; allowed {self.max_drop:g}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "parts": self.parts,
            "max_drop": self.max_drop,
            "metric": "i_auroc, aupro_30" if self.base.labelled else "map correlation, false rejects",
            "float32": self.base.to_json(),
            "float32_of_blocks": None if self.ranked is None else self.ranked.to_json(),
            "all_int8": _with_drop(self.everything, self.base),
            "final": _with_drop(self.final, self.base),
            "blocks": [
                {"graph": b.graph, "block": b.block, "layers": b.layers, "drop": b.drop, "drop_se": b.error}
                | {"left_in_fp16": b.kept}
                | b.outcome.to_json()
                for b in self.blocks
            ],
        }


def _with_drop(found: Outcome, base: Outcome) -> dict[str, Any]:
    drop, error = found.drop_and_error(base)
    return {**found.to_json(), "drop": drop, "drop_se": error}


def _float32(o: Outcome, over: str) -> str:
    if not o.labelled:
        return f"float32 ({over}): {_points(o.false_rejects).strip()} % of the good parts rejected, {o.parts} parts"
    told = f"I-AUROC {_points(o.i_auroc).strip()}, AUPRO@30 % {_points(o.aupro_30).strip()}"
    return f"float32 ({over}): {told}, {o.parts} parts"


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
    """Measure every block alone, then leave the worst in FP16 until the drop is met.

    Blocks are ranked on :data:`RANKED` parts a class, what counts is measured on all: everything in INT8, and what is
    left of it. How many blocks must stay FP16 is found by doubling and halving.

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
    probe = Probe(bundle, items, jobs=jobs, track=track)
    some = pick(probe.items, RANKED)
    base, near = probe.base(), probe.base(some)

    def alone(block: Block) -> BlockCost:
        ranges = table.ranges(block[0])
        found = probe.outcome(Candidate({block[0]: {k: ranges[k] for k in blocks[block]}}), some)
        drop, error = found.drop_and_error(near)
        return BlockCost(*block, len(blocks[block]), drop, found, error=error)

    done = map(alone, blocks)
    costs = list(track(done, len(blocks), "sensitivity") if track else done)
    # A drop within its own noise says nothing about the block: there the map's error decides.
    costs.sort(
        key=lambda c: (c.drop if c.drop > max(NOISE * c.error, TELLING) else 0.0, c.outcome.map_error), reverse=True
    )
    order = [(c.graph, c.block) for c in costs]

    def without(count: int) -> Outcome:
        ranges = table.left(group, order[:count])
        step = map(probe.outcome, [_whole(ranges, keep)])
        return next(iter(track(step, 1, f"{count} left in FP16" if count else "all in INT8") if track else step))

    everything = final = without(0)
    left = 0
    if everything.drop(base) > max_drop:
        left, final = _fewest(without, len(order), base, max_drop)
    if left == len(order) and order:
        raise EdgeAdError(
            f"no block can run in INT8 within a drop of {max_drop:g} points (all of them: {everything.drop(base):.2f})",
            "a drop that at least one block meets",
            "allow more with --max-drop, try another --method, or use --precision fp16",
        )
    marked = tuple(replace(c, kept=i < left) for i, c in enumerate(costs))
    report = Sensitivity(base, everything, marked, final, max_drop, base.parts, near)
    return report, table.left(group, order[:left])


def _fewest(without: Callable[[int], Outcome], most: int, base: Outcome, max_drop: float) -> tuple[int, Outcome]:
    """The fewest blocks that have to stay FP16, as far as doubling and halving finds it, and what is measured then.

    ``most`` where none may be INT8; the outcome is then that of the last one tried, or float32's.
    """
    low, high, best = 0, 1, base
    while high < most:
        found = without(high)
        if found.drop(base) <= max_drop:
            best = found
            break
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        found = without(middle)
        if found.drop(base) <= max_drop:
            high, best = middle, found
        else:
            low = middle
    return high, best


def pick(items: Sequence[Item], count: int) -> list[int]:
    """Numbers of ``count`` items a class, good and defective ones alike, evenly spaced within each."""
    found: list[int] = []
    for name in dict.fromkeys(i.class_name for i in items):
        sides = [
            [n for n, i in enumerate(items) if i.class_name == name and (i.defect == "good") is good]
            for good in (True, False)
        ]
        shares = [min(len(side), max(count // 2, count - len(other))) for side, other in zip(sides, sides[::-1])]
        for side, share in zip(sides, shares):
            found += [side[n * len(side) // share] for n in range(share)]
    return sorted(found)


def _whole(table: CalibrationTable, keep: Mapping[str, frozenset[str]]) -> Candidate:
    return Candidate({name: table.ranges(name) for name in table.graphs}, keep)
