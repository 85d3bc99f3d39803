"""What every command shares: error lines, ``--json``, ``--debug``, logs and progress. Imports click alone."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TextIO, TypeVar

import click

from edge_ad.errors import EdgeAdError, one_line

T = TypeVar("T")
USER_ERROR = 1
INTERNAL_ERROR = 2
LINE_EVERY_S = 5.0  # progress lines where stderr is no terminal
BAR_WIDTH = 24


def forgiving_streams() -> None:
    """Let stdout and stderr replace what the terminal cannot show, instead of failing on it; none at all is silence."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (closed by the shell: >&-)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def internal_error(error: BaseException) -> int:
    """Print the line for a fault of the program itself; returns its exit code."""
    what = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
    click.echo(f"internal error: {what}; run again with --debug and report it", err=True)
    return INTERNAL_ERROR


def cli_errors(callback: Callable[..., object]) -> Callable[..., None]:
    """Decorator of a command's callback, below ``@click.command()`` and its options.

    Adds ``--debug`` and ``--json``. The callback gets the latter as ``as_json: bool`` and must take it.
    :class:`EdgeAdError`, a file-system error and a lack of memory become one line ``error: ...`` on stderr with exit
    code 1; any other exception one line ``internal error: ...`` with exit code 2. ``--debug`` prints the
    traceback before the line. Ctrl-C and closed pipes are left to :mod:`edge_ad.cli.main`.
    """
    if "as_json" not in inspect.signature(callback).parameters:
        raise TypeError(f"{callback.__module__}: a command's callback takes `as_json: bool`")

    @click.option("--debug", is_flag=True, help="Print the traceback of an error.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @functools.wraps(callback)
    def wrapper(*args: Any, debug: bool, **kwargs: Any) -> None:
        try:
            callback(*args, **kwargs)
        except (BrokenPipeError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (EdgeAdError, OSError, MemoryError) as e:
            if debug:
                traceback.print_exc()
            click.echo(f"error: {user_line(e)}", err=True)
            sys.exit(USER_ERROR)
        except Exception as e:
            if debug:
                traceback.print_exc()
            sys.exit(internal_error(e))

    return wrapper


def user_line(error: Exception) -> str:
    """One line for an error that the user can mend."""
    if isinstance(error, MemoryError):
        return f"not enough memory {one_line(error)}".rstrip() + "; free some, or make the job smaller"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{one_line(error.filename)}: {error.strerror}"
    return one_line(error)


def plain(value: Any) -> Any:
    """``value`` as plain JSON types: NumPy scalars and arrays as numbers and lists, NaN and infinity as null,
    paths and all else as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def echo_json(value: Any) -> None:
    """Print one JSON document on stdout. ASCII alone, so that every terminal and pipe takes it."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def log(message: str) -> None:
    """One line on stderr: stdout belongs to the result."""
    click.echo(message, err=True)


def progress(
    iterable: Iterable[T], total: int | None = None, label: str = "", stream: TextIO | None = None
) -> Iterator[T]:
    """Yield from ``iterable`` and tell on stderr how far it is.

    On a terminal one live line; elsewhere a line every 5 s and one at the end. ``total`` defaults to the
    iterable's length where it has one.
    """
    stream = sys.stderr if stream is None else stream
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    live = stream.isatty()
    start = last = time.monotonic()
    done = 0
    width = 0

    def show(final: bool) -> None:
        nonlocal last, width
        now = last = time.monotonic()
        line = progress_line(label, done, total, now - start)
        if not live:
            stream.write(line + "\n")
        else:
            stream.write("\r" + line + " " * max(0, width - len(line)) + ("\n" if final else ""))
            width = len(line)
        stream.flush()

    try:
        if live:
            show(final=False)
        for item in iterable:
            yield item
            done += 1
            if time.monotonic() - last >= (0.1 if live else LINE_EVERY_S):
                show(final=False)
    finally:  # also when the loop is left early: the line ends, and says where it stopped
        show(final=True)


def progress_line(label: str, done: int, total: int | None, seconds: float) -> str:
    """e.g. ``fit [######      ] 50/100 50 % 12 s, 12 s left``."""
    head = f"{label} " if label else ""
    if not total:
        return f"{head}{done} {_duration(seconds)}"
    share = min(done / total, 1.0)
    bar = "#" * int(share * BAR_WIDTH)
    left = f", {_duration(seconds / done * (total - done))} left" if 0 < done < total else ""
    return f"{head}[{bar:<{BAR_WIDTH}}] {done}/{total} {share * 100:3.0f} % {_duration(seconds)}{left}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
