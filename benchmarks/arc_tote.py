"""Foreign objects in a tote on real recordings, beside the plain difference to the empty frame.

Run:
    python benchmarks/arc_tote.py --source ../shared/data/real/arc_tote
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from steps import ROOT, StepFailedError, Steps

from edge_ad.evaluation.tables import Table

# This script has the example's name, so the example is loaded by its path.
_spec = importlib.util.spec_from_file_location("arc_tote_example", ROOT / "examples/arc_tote.py")
assert _spec is not None and _spec.loader is not None
example = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(example)


def body(args: argparse.Namespace, steps: Steps, work: Path) -> tuple[dict[str, Any], Sequence[Table]]:
    """The example's steps with the options given."""
    if not args.source.is_dir():
        raise StepFailedError(f"no recordings in {args.source}; name them with --source")
    sizes = {"augment": args.augment, "min_steps": args.min_steps, "variations": args.variations}
    document = example.run(steps, args.source, work / "arc", work / "results", rate=args.false_reject_rate, **sizes)
    return document, [example.table(document)]


if __name__ == "__main__":
    options = common.parser(__doc__, parts=False)
    options.add_argument("--source", type=Path, default=example.SOURCE, help="folder arc_tote")
    options.add_argument("--augment", type=int, default=12, help="variations of each empty frame to fit on")
    options.add_argument("--variations", type=int, default=30, help="variations of each empty frame for the thresholds")
    options.add_argument("--min-steps", type=int, default=200, help="steps of the fit")
    options.add_argument("--false-reject-rate", type=float, default=0.05)
    sys.exit(common.finish("arc_tote", options.parse_args(), example.STEPS, body))
