"""Runs `edge-ad` commands one after another: says which, keeps what each answers as JSON, takes the time."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_ad.evaluation.tables import Table

ROOT = Path(__file__).resolve().parents[1]


class StepFailedError(Exception):
    """A command ended with an error; it has said why on stderr."""


class Steps:
    """Numbered steps. ``folder``: where each command's JSON is kept as ``NAME.json``; ``total``: steps expected."""

    def __init__(self, folder: Path, total: int) -> None:
        self.folder, self.total, self.number = folder, total, 0
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def edge_ad(self, name: str, title: str, *arguments: object) -> dict[str, Any]:
        """Run ``edge-ad ARGUMENTS --json`` in its own process. Raises StepFailedError."""
        words = [str(a) for a in arguments]
        self.begin(title, shlex.join(["edge-ad", *words]))
        start = time.monotonic()
        command = [sys.executable, "-m", "edge_ad.cli.main", *words, "--json"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise StepFailedError(f"{shlex.join(['edge-ad', *words])}: exit code {done.returncode}")
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        document["command"] = shlex.join(["edge-ad", *words])
        document["wall_seconds"] = round(time.monotonic() - start, 1)
        self.keep(name, document)
        self.seconds[name] = document["wall_seconds"]
        return document

    def begin(self, title: str, detail: str) -> None:
        """Print the head of a step."""
        self.number += 1
        print(f"\n[{self.number}/{self.total}] {title}\n      {detail}", flush=True)

    def tell(self, name: str, tables: Iterable[Table] = (), *lines: str) -> None:
        """Print a step's tables and lines, and how long it took."""
        for table in tables:
            print("\n" + table.to_text())
        for line in lines:
            print(line)
        total = time.monotonic() - self.started
        print(f"      {self.seconds.get(name, 0.0):.1f} s (in all {total:.0f} s)", flush=True)

    def skip(self, name: str, title: str, reason: str) -> None:
        """A step that cannot be done here: the reason is printed and kept."""
        self.begin(title, f"skipped: {reason}")
        self.keep(name, {"skipped": reason})

    def keep(self, name: str, document: dict[str, Any]) -> None:
        """Write ``NAME.json``."""
        (self.folder / f"{name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
