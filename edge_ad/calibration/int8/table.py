"""The calibration table: one line a layer, made to be read and compared with ``diff``. Lean.

A person may change a line (``int8`` to ``fp16``, a range) and apply it: ``edge-ad calibrate int8 BUNDLE --table FILE``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_ad.errors import EdgeAdError

FORMAT = 1
TITLE = "# edge-ad int8 calibration"
MODES = ("int8", "fp16")
_COLUMNS = ("graph", "layer", "mode", "range", "peak")


@dataclass(frozen=True)
class Row:
    """One layer. range : largest absolute input that 8 bits tell apart; peak : the largest that was seen.

    mode : ``int8``, or ``fp16`` where it was left in half precision.
    """

    graph: str
    layer: str
    mode: str
    range: float
    peak: float


@dataclass(frozen=True)
class CalibrationTable:
    """Rows in the order of the graphs; how they were found; the SHA-256 of each float32 graph they are for."""

    rows: tuple[Row, ...]
    about: Mapping[str, str] = field(default_factory=dict)
    graphs: Mapping[str, str] = field(default_factory=dict)

    def ranges(self, graph: str) -> dict[str, float]:
        """Layer -> range of the layers of a graph that run in INT8."""
        return {r.layer: r.range for r in self.rows if r.graph == graph and r.mode == "int8"}

    def left(self, blocks: Mapping[tuple[str, str], str], out: Sequence[tuple[str, str]]) -> CalibrationTable:
        """The same with the layers of some blocks in FP16. blocks : (graph, layer) -> block; out : (graph, block)."""
        chosen = set(out)
        return replace(
            self,
            rows=tuple(
                replace(r, mode="fp16") if (r.graph, blocks.get((r.graph, r.layer), r.layer)) in chosen else r
                for r in self.rows
            ),
        )

    def to_text(self) -> str:
        """The file."""
        lines = [f"{TITLE} {FORMAT}"]
        lines += [f"# {key}: {value}" for key, value in self.about.items()]
        lines += [f"# graph {name}: {digest}" for name, digest in self.graphs.items()]
        cells = [_COLUMNS, *((r.graph, r.layer, r.mode, _number(r.range), _number(r.peak)) for r in self.rows)]
        widths = [max(len(c[i]) for c in cells) for i in range(len(_COLUMNS) - 1)]
        lines += [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[-1]]) if i else "# " + "  ".join(row)
            for i, row in enumerate(cells)
        ]
        return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.6g}"


def parse_table(text: str, where: str) -> CalibrationTable:
    """Read what :meth:`CalibrationTable.to_text` wrote, perhaps changed by a person.

    Raises
    ------
    EdgeAdError
        Not such a table, or a line that is none; with its number.
    """
    lines = text.splitlines()
    if not lines or not lines[0].startswith(TITLE):
        raise EdgeAdError(f"{where} is no calibration table", f"a first line '{TITLE} {FORMAT}'")
    if lines[0].removeprefix(TITLE).strip() != str(FORMAT):
        raise EdgeAdError(f"{where}: table format{lines[0].removeprefix(TITLE)}", str(FORMAT), "update edge-ad here")
    about: dict[str, str] = {}
    graphs: dict[str, str] = {}
    rows: list[Row] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        if line.startswith("#"):
            key, colon, value = line[1:].strip().partition(": ")
            if key.startswith("graph ") and colon:
                graphs[key.removeprefix("graph ")] = value
            elif colon:
                about[key] = value
            continue
        rows.append(_row(line, f"{where}, line {number}"))
    if not rows:
        raise EdgeAdError(f"{where} lists no layer", "one line a layer", "run edge-ad calibrate int8 again")
    return CalibrationTable(tuple(rows), about, graphs)


def _row(line: str, where: str) -> Row:
    cells = line.split()
    try:
        graph, layer, mode, top, peak = cells
        row = Row(graph, layer, mode, float(top), float(peak))
    except ValueError:
        raise EdgeAdError(f"{where}: '{line.strip()}'", " ".join(_COLUMNS)) from None
    if mode not in MODES:
        raise EdgeAdError(f"{where}: mode '{mode}'", " or ".join(MODES))
    if mode == "int8" and not (0 < row.range < math.inf):
        raise EdgeAdError(f"{where}: range {top}", "a number above 0")
    return row


def read_table(path: Path) -> CalibrationTable:
    """The table in a file; EdgeAdError when it is absent or not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise EdgeAdError(
            f"{path} does not exist", "a calibration table", "make one: edge-ad calibrate int8 BUNDLE --data DIR"
        ) from None
    except (OSError, UnicodeDecodeError) as e:
        raise EdgeAdError(f"{path} cannot be read ({e})", "a calibration table") from None
    return parse_table(text, str(path))
