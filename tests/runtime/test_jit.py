"""Compiled code on disk: found again, and made anew when what it was made of changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CALLER = """
from below import one
from edge_ad.runtime.jit import compiled

@compiled(**{options})
def two(x):
    return one(x) + 1
"""
BELOW = """
from edge_ad.runtime.jit import compiled

@compiled()
def one(x):
    return x * {factor}
"""


def _answer(folder: Path, seed: str = "0") -> tuple[float, int]:
    """``two(5.0)`` in a new process, and how often its code was taken from the disk."""
    code = "import caller; print(caller.two(5.0), sum(caller.two.stats.cache_hits.values()))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    environment["PYTHONHASHSEED"] = seed  # the order in which a process writes a set
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    value, hits = done.stdout.split()
    return float(value), int(hits)


def test_a_change_below_or_of_the_options_compiles_anew(tmp_path: Path) -> None:
    caller, below = tmp_path / "caller.py", tmp_path / "below.py"
    caller.write_text(CALLER.format(options="{'boundscheck': None}"))
    below.write_text(BELOW.format(factor=2))
    assert _answer(tmp_path) == (11.0, 0)
    assert _answer(tmp_path) == (11.0, 1)
    below.write_text(BELOW.format(factor=30))
    assert _answer(tmp_path) == (151.0, 0)
    assert _answer(tmp_path) == (151.0, 1)
    # The same length and date: only the options tell it apart.
    kept = caller.stat()
    caller.write_text(CALLER.format(options="{'boundscheck': True}"))
    os.utime(caller, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert caller.stat().st_size == kept.st_size
    assert _answer(tmp_path) == (151.0, 0)


def test_a_set_among_the_options_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER.format(options="{'fastmath': {'contract', 'reassoc', 'nsz'}}"))
    (tmp_path / "below.py").write_text(BELOW.format(factor=2))
    assert [_answer(tmp_path, seed) for seed in "0123"] == [(11.0, 0), (11.0, 1), (11.0, 1), (11.0, 1)]


def test_without_compiler_the_functions_run_as_python(tmp_path: Path) -> None:
    (tmp_path / "below.py").write_text(BELOW.format(factor=3))
    code = "import below; print(below.one(2), hasattr(below.one, '_cache'))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["6", "False"], done.stderr
