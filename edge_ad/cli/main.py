"""``edge-ad``: a group that imports a command's module only when that command runs.

Exit codes: 0 done, 1 an error the user can mend, 2 wrong usage or an internal error, 130 interrupted (Ctrl-C),
141 the reader of a pipe went away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from edge_ad import __version__
from edge_ad.cli.common import forgiving_streams, internal_error

# name -> (module, help). The help stands here so that `edge-ad --help` imports no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "synth": ("synth", "Make synthetic parts with exact ground truth, in the MVTec 3D-AD layout."),
    "fit": ("fit", "Fit one model over all classes of a data set of good parts."),
    "evaluate": ("evaluate", "Measure a model on a test split: tables and a contact sheet."),
    "export": ("export", "Turn a fitted model into a bundle for the box."),
    "build-engine": ("build_engine", "Build an engine for a bundle's graphs."),
    "verify": ("verify", "Hold one backend or precision against another, stage by stage."),
    "add-class": ("add_class", "Add a class to a model and its bundle; the encoders' engines stay."),
    "run": ("run", "Inspect the frames of a camera with a bundle."),
    "tune": ("tune", "Choose variant, stride, precision and backend for this box by measurement."),
    "profile": ("profile", "Time every stage on this box, with memory and the floor."),
    "calibrate": ("calibrate", "Set what a bundle needs from its own line: thresholds, scene."),
    "cameras": ("cameras", "List the sources that --camera takes, and what is connected."),
    "record": ("record", "Record a camera's frames as training data, or raw."),
    "doctor": ("doctor", "Say what this box has and lacks."),
    "pretrain-points": ("pretrain_points", "Pretrain the small Point-MAE on procedural shapes."),
}
INTERRUPTED = 130
CLOSED_PIPE = 141


class ClosedPipe(Exception):
    """The reader of stdout or stderr went away. Raised past click, which would leave with 1 at once."""


class LazyGroup(click.Group):
    """A group whose commands are named in :data:`COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"edge_ad.cli.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "run: edge-ad --help"
            raise click.UsageError(f"no command '{name}'; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as e:  # while --help is printed
            raise ClosedPipe from e

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as e:
            raise ClosedPipe from e

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and leave with one line instead of a traceback whatever happens."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        forgiving_streams()
        sys.exit(self._guarded(args, prog_name, complete_var, extra))

    def _guarded(
        self, args: Sequence[str] | None, prog_name: str | None, complete_var: str | None, extra: dict[str, Any]
    ) -> int:
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            # Written now: a reader that went away is then met here, not in the interpreter's last breath.
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except (BrokenPipeError, ClosedPipe):
            return _closed_pipe()
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except click.ClickException as e:
            e.show()
            return e.exit_code
        except SystemExit as e:
            return e.code if isinstance(e.code, int) else int(e.code is not None)
        except Exception as e:
            return internal_error(e)


def _closed_pipe() -> int:
    """Point stdout at nothing, so that the interpreter's own flush at exit stays silent."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no real file (tests)
        pass
    return CLOSED_PIPE


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edge-ad")
def main() -> None:
    """Colour + depth anomaly detection: fit on a workstation, export a bundle, run it on the box.

    Each command takes --json (one JSON document on stdout; progress and logs on stderr) and --debug.
    """


if __name__ == "__main__":
    main(prog_name="edge-ad")
