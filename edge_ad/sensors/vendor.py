"""Loading a camera maker's module: it may print to stdout, which belongs to results, and fail in its own ways."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from edge_ad.errors import EdgeAdError, missing_package, one_line


def load(module: str, extra: str) -> Any:
    """Import ``module`` with what it prints sent to stderr. Raises EdgeAdError naming the extra that brings it."""
    try:
        with stdout_to_stderr():
            return import_module(module)
    except ModuleNotFoundError as e:
        if e.name and e.name.partition(".")[0] != module:
            raise EdgeAdError(f"'{module}' needs '{e.name}'", "", f"run: pip install {e.name}") from None
        raise missing_package(module, extra) from None
    except (ImportError, OSError) as e:
        raise EdgeAdError(f"'{module}' cannot be loaded ({one_line(e)})") from None


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What native code and Python write to stdout goes to stderr for a while."""
    python = sys.stdout
    with _redirected(1, 2):
        sys.stdout = sys.stderr
        try:
            yield
        finally:
            sys.stdout = python


@contextmanager
def silent() -> Iterator[None]:
    """What native code writes to stdout and stderr is dropped for a while: a list of devices is no place for it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with _redirected(1, nowhere), _redirected(2, nowhere):
            yield
    finally:
        os.close(nowhere)


@contextmanager
def _redirected(number: int, target: int) -> Iterator[None]:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        kept = os.dup(number)
        os.dup2(target, number)
    except OSError:  # one of the two is closed
        yield
        return
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(kept, number)
        os.close(kept)
