"""INT8 for a bundle: ranges from real frames, the sensitive blocks left in FP16, the graphs put in. Needs onnx."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.frames import FEW, frames_of_bundle, refuse_constant
from edge_ad.calibration.int8.methods import PERCENTILE
from edge_ad.calibration.int8.observe import check_table, make_table, observe
from edge_ad.calibration.int8.probe import Probe
from edge_ad.calibration.int8.sensitivity import Sensitivity, measure
from edge_ad.calibration.int8.spare import Spared, spare
from edge_ad.calibration.int8.table import CalibrationTable
from edge_ad.data.dataset import Dataset, Item
from edge_ad.engines.compare import load_sessions
from edge_ad.engines.cost import measure_cost, write_cost
from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.assemble import add_int8, base_graphs, digests, graph_sizes, kept_nodes
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.overflow import Kept, find_overflows
from edge_ad.export.precision.replay import Replay
from edge_ad.frame import Frame

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
T = TypeVar("T")
SPARED_ON = 8
"""Calibration frames on which every layer is measured alone."""


@dataclass(frozen=True)
class Int8Report:
    """What was done.

    table : as it stands in the bundle. kept : nodes that stay FP32. sensitivity, spared : where they were measured.
    bytes : graph -> (float32, INT8) bytes of its file. frames : that were calibrated on.
    """

    bundle: Bundle
    table: CalibrationTable
    kept: tuple[Kept, ...]
    sensitivity: Sensitivity | None
    bytes: dict[str, tuple[int, int]]
    frames: int
    warnings: tuple[str, ...]
    spared: Spared | None = None

    def text(self) -> str:
        """For the terminal."""
        lines = [] if self.spared is None else [self.spared.table(), ""]
        lines += [] if self.sensitivity is None else [self.sensitivity.table(), ""]
        modes = {g: Counter(r.mode for r in self.table.rows if r.graph == g) for g in self.bytes}
        lines.append(f"{'graph':8} {'INT8':>6} {'FP16':>6} layers {'float32 MB':>11} {'INT8 MB':>8} {'ratio':>6}")
        rows = [(g, f"{modes[g]['int8']:6d} {modes[g]['fp16']:6d}", *b) for g, b in self.bytes.items()]
        sizes = self.bytes.values()
        rows.append(("all", f"{'':13}", sum(a for a, _ in sizes), sum(b for _, b in sizes)))
        for g, counts, full, small in rows:
            lines.append(f"{g:8} {counts} {'':6} {full / 1e6:11.2f} {small / 1e6:8.2f} {small / full:6.2f}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "frames": self.frames,
            "method": self.table.about.get("method", ""),
            "layers": [r.__dict__ for r in self.table.rows],
            "kept_fp32_for_overflow": [k.__dict__ for k in self.kept if k.why == "overflow"],
            "bytes": {g: {"fp32": a, "int8": b} for g, (a, b) in self.bytes.items()},
            "spared": None if self.spared is None else self.spared.to_json(),
            "sensitivity": None if self.sensitivity is None else self.sensitivity.to_json(),
            "warnings": list(self.warnings),
        }


def calibrate_int8(
    bundle: Bundle,
    frames: Sequence[tuple[Frame, str]],
    where: str,
    *,
    method: str = "mse",
    percentile: float = PERCENTILE,
    every_layer: bool = False,
    max_drop: float | None = None,
    measure_on: Sequence[Item] = (),
    jobs: int = 0,
    threads: int = 1,
    track: Track | None = None,
) -> Int8Report:
    """Calibrate on ``frames`` and put the INT8 graphs with their table into the bundle.

    Parameters
    ----------
    frames : (frame, class or "") as the line shows them. where : where they come from, for errors and the table.
    method, percentile : see :func:`edge_ad.calibration.int8.methods.choose_range`.
    every_layer : all of them in INT8, also those that :func:`edge_ad.calibration.int8.spare.spare` would leave in FP16.
    max_drop : points that INT8 may cost on ``measure_on``; the costliest blocks stay FP16 until it is met. None: not
    measured.

    Raises
    ------
    EdgeAdError
        Constant or unusable frames, a drop that cannot be met, a packed bundle, a full disk; the bundle is then as it
        was.
    """
    bundle.writable("graphs cannot be added")
    refuse_constant(frames, where)
    models = base_graphs(bundle)
    replay = Replay(bundle, threads)
    parts = replay.prepare(frames)
    histograms = observe(replay, models, parts, track)
    kept = find_overflows(replay, models, parts, track=track)
    about = {"frames": str(len(frames)), "from": where}
    table = make_table(models, histograms, method, digests(bundle), percentile, about)
    spared = None
    if not every_layer:
        few = items_of_frames(_even(frames, SPARED_ON), bundle)
        spared, table = spare(Probe(bundle, few, jobs=jobs), table, track=track)
    report = None
    if max_drop is not None:
        keep = {name: frozenset(kept_nodes(kept, name)) for name in models}
        report, table = measure(bundle, table, measure_on, keep, max_drop, jobs=jobs, track=track)
    warnings = []
    if len(frames) < FEW:
        warnings.append(
            f"{len(frames)} frames are few: ranges may not hold for parts to come; {FEW} or more are better"
        )
    written = _write(bundle, models, table, kept, report, len(frames), tuple(warnings))
    return replace(written, spared=spared)


def apply_table(
    bundle: Bundle, table: CalibrationTable, where: str, *, threads: int = 1, track: Track | None = None
) -> Int8Report:
    """Put INT8 graphs into the bundle by a table that exists, e.g. one that a person changed.

    FP16 overflows are looked for on the golden frames.

    Raises
    ------
    EdgeAdError
        The table is of other graphs, or names a layer that they have not.
    """
    bundle.writable("graphs cannot be added")
    models = base_graphs(bundle)
    check_table(table, digests(bundle), where)
    replay = Replay(bundle, threads)
    kept = find_overflows(replay, models, replay.prepare(frames_of_bundle(bundle)), track=track)
    return _write(bundle, models, table, kept, None, int(table.about.get("frames", "0") or 0), ())


def _write(
    bundle: Bundle,
    models: Mapping[str, Model],
    table: CalibrationTable,
    kept: Sequence[Kept],
    report: Sensitivity | None,
    frames: int,
    warnings: tuple[str, ...],
) -> Int8Report:
    graphs = {
        name: to_int8(Graph(path, name), table.ranges(name), kept_nodes(kept, name)) for name, path in models.items()
    }
    written = add_int8(bundle, graphs, table.to_text())
    sessions = load_sessions(written, "onnxruntime", "int8")
    written = write_cost(written, "int8", measure_cost(written, sessions))  # what the golden gate then expects
    return Int8Report(written, table, tuple(kept), report, graph_sizes(written, "int8"), frames, warnings)


def parts_to_measure(bundle: Bundle, data: Dataset, count: int) -> list[Item]:
    """Parts for ``--max-drop``: the test split where it has good and defective parts, else held-out good ones.

    At most ``count`` a class (0: all), kinds of defect in turn and good parts as many as defective ones where there are
    so many.
    """
    count = count or len(data.items)
    out: list[Item] = []
    for name in bundle.class_names:
        test = data.select(name, "test")
        good = [i for i in test if i.defect == "good"]
        bad = _in_turn([i for i in test if i.defect != "good"])
        if good and bad:
            half = max(count // 2, count - len(bad))
            out += _even(good, half)
            out += bad[: count - min(len(good), half)]
        else:
            held = data.select(name, "validation", "good") or tuple(good) or data.select(name, "train", "good")
            out += _even(list(held), count)
    if not out:
        raise EdgeAdError(f"{data.root} has no parts of {', '.join(bundle.class_names)}", "parts to measure on")
    return out


def _in_turn(items: Sequence[Item]) -> list[Item]:
    kinds: dict[str, list[Item]] = {}
    for item in items:
        kinds.setdefault(item.defect, []).append(item)
    longest = max((len(v) for v in kinds.values()), default=0)
    return [v[i] for i in range(longest) for v in kinds.values() if i < len(v)]


def _even(items: Sequence[T], count: int) -> list[T]:
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def items_of_frames(frames: Sequence[tuple[Frame, str]], bundle: Bundle) -> list[Item]:
    """Good parts from frames in memory (a camera's), to measure on."""
    only = bundle.class_names[0]
    return [
        Item(
            name=frame.name or f"frame/{i}",
            class_name=name or only,
            split="validation",
            defect="good",
            source=Path(frame.source or "camera"),
            read_frame=partial(_give, frame),
            read_truth=partial(_give, None),
        )
        for i, (frame, name) in enumerate(frames)
    ]


def _give(value: Any) -> Any:
    return value
