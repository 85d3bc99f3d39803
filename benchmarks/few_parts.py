"""How many good parts does a fit need, and what do seeded variations of them bring? The same test split after each fit.

Features come from the same cache and no threshold is involved: what changes is how many parts of each class the
mappers, the class's own whitening and the balance of the terms have seen.

Run:
    python benchmarks/few_parts.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from steps import Steps

from edge_ad.evaluation.tables import Table


def with_fewer(parts: Path, place: Path, count: int) -> Path:
    """A copy of ``parts`` (MVTec 3D layout) whose classes keep their first ``count`` good training parts."""
    if place.exists():
        shutil.rmtree(place)

    def beyond(folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(parts).parts
        if inside[1:3] != ("train", "good") or len(inside) < 4:
            return []
        return sorted(names)[count:]

    shutil.copytree(parts, place, ignore=beyond)
    return place


def body(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], Sequence[Table]]:
    """A fit a count and number of variations, each measured on the same test parts."""
    parts = args.data or common.make_parts(args, steps, work)
    measured: dict[str, dict[str, Any]] = {}
    for count, augment in args.fits:
        few, name = with_fewer(parts, work / f"parts-{count}", count), f"{count}+{augment}"
        model, bundle = work / f"model-{name}", work / f"bundle-{name}"
        steps.edge_ad(
            f"fit-{name}", f"fit on {count} parts a class, {augment} variations of each", "fit", "--data", few,
            "--out", model, "--cache", work / "cache", "--augment", augment, *common.fit_options(args),
            *(x for s in args.set for x in ("--set", s)),
        )  # fmt: skip
        steps.tell(f"fit-{name}")
        steps.edge_ad(f"export-{name}", "export", "export", model, bundle, "--data", few)
        measured[name] = steps.edge_ad(
            f"evaluate-{name}", "evaluate", "evaluate", bundle, "--data", few, "--no-baseline"
        )
        steps.tell(f"evaluate-{name}")
    return measured, [table(measured)]


def table(measured: dict[str, dict[str, Any]]) -> Table:
    """Means over the classes, and the worst class, by the number of good parts."""
    rows = []
    for name, found in measured.items():
        count, _, augment = name.partition("+")
        mean, classes = found["mean"], found["classes"]
        worst = min(classes, key=lambda c: float(classes[c]["i_auroc"]))
        shown = [f"{100 * mean[k]:.1f}" for k in ("i_auroc", "p_auroc", "aupro_30", "aupro_1")]
        lowest = f"{worst.replace('_', ' ')} {100 * classes[worst]['i_auroc']:.1f}"
        rows.append((count, augment, *shown, lowest))
    heads = ("good parts a class", "variations of each", "I-AUROC", "P-AUROC", "AUPRO@30 %", "AUPRO@1 %")
    notes = ("per cent, mean over the classes, test parts",)
    return Table("Good parts a class in the fit", (*heads, "lowest class, I-AUROC"), tuple(rows), notes=notes)


def main() -> int:
    """Command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--data", type=Path, help="synthetic parts that are there already, instead of new ones")
    parser.add_argument(
        "--fits",
        type=lambda s: [tuple(map(int, f.split("+"))) for f in s.split(",")],
        default=[(8, 0), (8, 2), (60, 0)],
        help="PARTS+VARIATIONS, comma-separated",
    )
    parser.add_argument("--set", action="append", default=[], help="TABLE.FIELD=VALUE for the fit")
    args = parser.parse_args()
    return common.finish("few_parts", args, 3 * len(args.fits) + (args.data is None), body)


if __name__ == "__main__":
    sys.exit(main())
