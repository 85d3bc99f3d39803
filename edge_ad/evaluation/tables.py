"""Plain-text and Markdown tables, and the table of metrics a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_ad.errors import EdgeAdError

#: key in JSON -> heading; the order of the columns.
METRICS: dict[str, str] = {
    "i_auroc": "I-AUROC",
    "p_auroc": "P-AUROC",
    "aupro_30": "AUPRO@30%",
    "aupro_1": "AUPRO@1%",
}
_MISSING = "-"


@dataclass(frozen=True)
class Table:
    """A table of text cells. The first column is aligned left, the others right.

    Attributes
    ----------
    columns : headings. rows : one tuple a row, as long as ``columns``.
    footer : rows set apart below a rule (the mean). notes : lines printed below.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for row in (*self.rows, *self.footer):
            if len(row) != len(self.columns):
                raise EdgeAdError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns")

    def to_text(self) -> str:
        """For the terminal: aligned columns, a rule under the heading and above the footer."""
        everything = (self.columns, *self.rows, *self.footer)
        widths = [max(len(row[i]) for row in everything) for i in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            cells = [
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        lines = [self.title] if self.title else []
        lines += [line(self.columns), rule, *map(line, self.rows)]
        if self.footer:
            lines += [rule, *map(line, self.footer)]
        return "\n".join([*lines, *self.notes])

    def to_markdown(self) -> str:
        """For documents: a GitHub-flavoured table; the footer is bold, the notes follow as a list."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        lines = [f"**{self.title}**", ""] if self.title else []
        lines += [line(self.columns), "|" + "|".join(["---"] + ["---:"] * (len(self.columns) - 1)) + "|"]
        lines += [line(row) for row in self.rows]
        lines += [line([f"**{cell}**" for cell in row]) for row in self.footer]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The cells as they are printed, keyed by heading."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "footer": [dict(zip(self.columns, row, strict=True)) for row in self.footer],
            "notes": list(self.notes),
        }


def percent(value: float | None, digits: int = 1) -> str:
    """``0.9471 -> '94.7'``; a metric that does not exist is ``-``."""
    return _MISSING if value is None else f"{100.0 * value:.{digits}f}"


def thresholds_note(thresholds: int | None) -> str:
    """How the AUPRO was integrated. It belongs under every table that shows one (METHOD section 8)."""
    if thresholds is None:
        return "AUPRO: exact integration over all distinct scores"
    return f"AUPRO: {thresholds} thresholds (the published convention); figures of another number do not compare"


def mean_of(values: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean over the classes, metric by metric, over the classes that have it; None when none has."""
    means: dict[str, float | None] = {}
    for key in METRICS:
        known = [v for v in (metrics.get(key) for metrics in values.values()) if v is not None]
        means[key] = sum(known) / len(known) if known else None
    return means


def metrics_table(
    values: Mapping[str, Mapping[str, float | None]],
    thresholds: int | None,
    *,
    title: str = "",
    counts: Mapping[str, tuple[int, int]] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Classes x metrics in per cent, with the mean and the number of thresholds.

    Parameters
    ----------
    values : class -> metric (keys of ``METRICS``, in [0, 1]) -> value or None.
    thresholds : number of AUPRO thresholds, None for exact.
    counts : class -> (good parts, defective parts), shown as two columns when given.
    """
    columns = ["class"]
    if counts is not None:
        columns += ["good", "defective"]
    columns += METRICS.values()
    rows = []
    for name, metrics in values.items():
        row = [name]
        if counts is not None:
            row += [str(n) for n in counts[name]]
        rows.append(tuple(row + [percent(metrics.get(key)) for key in METRICS]))
    mean = ["mean"]
    if counts is not None:
        mean += [str(sum(counts[name][i] for name in values)) for i in (0, 1)]
    means = mean_of(values)
    mean += [percent(means[key]) for key in METRICS]
    all_notes = ["metrics in per cent", thresholds_note(thresholds), *notes]
    for key, heading in METRICS.items():
        missing = [name for name, metrics in values.items() if metrics.get(key) is None]
        if missing and len(missing) < len(values):
            all_notes.append(f"mean of {heading} without {', '.join(missing)}")
    return Table(title, tuple(columns), tuple(rows), (tuple(mean),), tuple(all_notes))
