"""What every benchmark shares: a work folder, the machine's description, and results as JSON and Markdown."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
from machine import machine, versions  # noqa: E402
from steps import StepFailedError, Steps  # noqa: E402

from edge_ad.evaluation.tables import Table  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
ABSOLUTE = re.compile(r"(?<![^\s'\"(:=,])/[^\s'\":;,)/][^\s'\":;,)]*")
Body = Callable[[argparse.Namespace, Steps, Path], tuple[dict[str, Any], Sequence[Table]]]


def parser(text: str | None, *, parts: bool = True) -> argparse.ArgumentParser:
    """Options that every benchmark takes; ``parts``: those that choose synthetic parts and the fit as well."""
    made = argparse.ArgumentParser(description=(text or "").split("\n\n")[0])
    made.add_argument("--work", type=Path, help="folder for what is made on the way (default: a temporary one)")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder for NAME.json and NAME.md")
    if parts:
        made.add_argument("--seed", type=int, default=1, help="seed of the parts; the demo uses 0 (default: 1)")
        made.add_argument("--parts", choices=("small", "full"), default="full")
        made.add_argument("--classes", default="", help="comma-separated; all by default")
        made.add_argument("--preset", default="compact")
        made.add_argument("--epochs", type=int, help="instead of the preset's")
        made.add_argument("--min-steps", type=int, help="instead of the command's own")
    return made


def fit_options(args: argparse.Namespace) -> list[object]:
    """Arguments of ``edge-ad fit`` from a benchmark's options."""
    chosen = (("--epochs", args.epochs), ("--min-steps", args.min_steps))
    return ["--preset", args.preset, *(x for pair in chosen if pair[1] is not None for x in pair)]


def make_parts(args: argparse.Namespace, steps: Steps, work: Path) -> Path:
    """Synthetic parts under ``work/parts``."""
    parts = work / "parts"
    some = ["--classes", args.classes] if args.classes else []
    steps.edge_ad(
        "synth", "make synthetic parts", "synth", "--out", parts, "--parts", args.parts, "--seed", args.seed, *some
    )
    steps.tell("synth")
    return parts


def finish(name: str, args: argparse.Namespace, total: int, body: Body) -> int:
    """Run ``body(args, steps, work)``, print its tables, write the results. Returns the exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        steps = Steps(work / "json", total)
        try:
            document, tables = body(args, steps, work)
        except StepFailedError as e:
            print(f"error: {e}", file=sys.stderr)
            return 1
    for table in tables:
        print("\n" + table.to_text())
    keep(args.results, name, args, {"seconds": steps.seconds, "result": document}, tables)
    return 0


def keep(folder: Path, name: str, args: argparse.Namespace, document: dict[str, Any], tables: Sequence[Table]) -> None:
    """Write ``NAME.json`` (the conditions, then ``document``) and ``NAME.md`` (the tables, then the conditions)."""
    setup = conditions(args)
    told = "; ".join(f"{k} {v}" for k, v in setup.items())
    text = "\n\n".join([*(t.to_markdown() for t in tables), f"Conditions: {told}."])
    folder.mkdir(parents=True, exist_ok=True)
    whole = last_names({"setup": setup, **document})
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(last_names(text) + "\n", encoding="utf-8")
    print(f"\nwrote {folder / name}.json and .md")


def last_names(found: Any) -> Any:
    """``found`` with every absolute path in its texts cut to its last name: a result speaks of no one's folders."""
    if isinstance(found, str):
        return ABSOLUTE.sub(lambda match: Path(match[0]).name, found)
    if isinstance(found, dict):
        return {key: last_names(value) for key, value in found.items()}
    return [last_names(value) for value in found] if isinstance(found, (list, tuple)) else found


def conditions(args: argparse.Namespace) -> dict[str, str]:
    """When and on what the figures were measured, and every option."""
    options = {k: v for k, v in vars(args).items() if k not in ("work", "results", "source") and v not in (None, "")}
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "options": " ".join(f"--{k.replace('_', '-')} {v}" for k, v in options.items()) or "none",
    }
