"""Does the pretraining of the point encoder help? One fit with the shipped weights, one with random ones.

Parts, colour encoder, mappers, steps and seeds are the same; only `points.checkpoint` differs. Both without
`mappers.condition`: random features vary so little that export refuses what a class's whitening makes of their rounding
(2e-4 of the map where 1e-4 is allowed; 6e-6 with the shipped weights).

Run:
    python benchmarks/pretraining_helps.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from steps import Steps

from edge_ad.evaluation.tables import Table

WEIGHTS = {"pretrained": "package", "random": "random"}


def body(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], Sequence[Table]]:
    """Two fits on the same parts, each measured the same way."""
    parts = common.make_parts(args, steps, work)
    measured: dict[str, dict[str, Any]] = {}
    for name, checkpoint in WEIGHTS.items():
        model, bundle = work / f"model-{name}", work / f"bundle-{name}"
        steps.edge_ad(
            f"fit-{name}", f"fit with {name} point weights", "fit", "--data", parts, "--out", model,
            *common.fit_options(args), "--set", f"points.checkpoint={checkpoint}", "--set", "mappers.condition=none",
        )  # fmt: skip
        steps.tell(f"fit-{name}")
        steps.edge_ad(f"export-{name}", "export", "export", model, bundle, "--data", parts)
        steps.tell(f"export-{name}")
        measured[name] = steps.edge_ad(
            f"evaluate-{name}", "evaluate", "evaluate", bundle, "--data", parts, "--ablation", "--no-baseline"
        )
        steps.tell(f"evaluate-{name}")
    return measured, [by_class(measured), by_modality(measured)]


def by_class(measured: dict[str, dict[str, Any]]) -> Table:
    """I-AUROC and AUPRO@30 % a class, pretrained against random."""
    keys = (("i_auroc", "I-AUROC"), ("aupro_30", "AUPRO@30%"))
    classes = measured["pretrained"]["classes"]

    def cells(name: str, values: dict[str, dict[str, Any]]) -> tuple[str, ...]:
        row = [name]
        for key, _ in keys:
            row += [f"{100 * values[w][key]:.1f}" for w in WEIGHTS]
        return tuple(row)

    rows = tuple(cells(c, {w: measured[w]["classes"][c] for w in WEIGHTS}) for c in classes)
    mean = cells("mean", {w: measured[w]["mean"] for w in WEIGHTS})
    columns = ("class", *(f"{heading}, {w}" for _, heading in keys for w in WEIGHTS))
    return Table("Point encoder: pretrained against random weights", columns, rows, (mean,), ("per cent, test parts",))


def by_modality(measured: dict[str, dict[str, Any]]) -> Table:
    """I-AUROC by where the defect shows, of the whole score and of depth alone."""
    tables = {w: measured[w]["ablation_i_auroc"] for w in WEIGHTS}
    rows = []
    for way in ("full", "depth only"):
        if all(way in t for t in tables.values()):
            rows += [(f"{way}, {w}", *(f"{100 * v:.1f}" for v in t[way].values())) for w, t in tables.items()]
    kinds = tuple(next(iter(tables.values()))["full"])
    note = "mean over the classes, per cent; each kind of defect against all good test parts"
    return Table("I-AUROC by where the defect shows", ("scored by", *kinds), tuple(rows), notes=(note,))


if __name__ == "__main__":
    sys.exit(common.finish("pretraining_helps", common.parser(__doc__).parse_args(), 7, body))
