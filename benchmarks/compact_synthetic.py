"""Accuracy of a preset on synthetic parts of a fresh seed: fit, export, thresholds, evaluate.

Run:
    python benchmarks/compact_synthetic.py
    python benchmarks/compact_synthetic.py --parts small --classes gear,hex_nut --epochs 1 --min-steps 40
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import report
from steps import Steps

from edge_ad.evaluation.tables import Table


def body(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], Sequence[Table]]:
    """Every step, and the tables that come out."""
    parts, model, bundle = common.make_parts(args, steps, work), work / "model", work / "bundle"
    fitted = steps.edge_ad("fit", "fit", "fit", "--data", parts, "--out", model, *common.fit_options(args))
    steps.tell("fit", report.fitted(fitted))
    exported = steps.edge_ad("export", "export", "export", model, bundle, "--data", parts)
    steps.tell("export", [report.exported(exported)])
    limits = steps.edge_ad(
        "thresholds", "set thresholds", "calibrate", "thresholds", bundle, "--data", parts,
        "--false-reject-rate", 0.2 if args.parts == "small" else 0.05,
    )  # fmt: skip
    steps.tell("thresholds", [report.thresholds(limits)])
    measured = steps.edge_ad("evaluate", "evaluate", "evaluate", bundle, "--data", parts, "--ablation")
    steps.tell("evaluate")
    tables = [report.metrics(measured), *report.ablation(measured), *report.recall(measured), *report.fitted(fitted)]
    return {"evaluate": measured, "fit": fitted, "export": exported, "thresholds": limits}, tables


if __name__ == "__main__":
    sys.exit(common.finish("compact_synthetic", common.parser(__doc__).parse_args(), 5, body))
