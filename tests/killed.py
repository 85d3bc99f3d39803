"""A program that is killed half way: it runs until it kills itself where a test put that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_until_killed(script: str, *arguments: object) -> None:
    """Run a script that ends in ``kill()``, which is SIGKILL to itself; one that ends in another way is a failure."""
    kill = "import os, signal\ndef kill(): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", kill + textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
