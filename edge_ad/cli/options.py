"""Options that several commands take, each worded once. Imports click alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def several(*options: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator for options in this order."""

    def decorate(callback: F) -> F:
        for option in reversed(options):
            callback = option(callback)
        return callback

    return decorate


bundle = click.argument("bundle", type=click.Path(path_type=Path))
layout = click.option("--layout", default="auto", show_default=True, help="auto, mvtec3d, eyecandies or recordings.")
class_name = click.option(
    "--class", "--class-name", "class_name", default=None, help="Class of a flat folder of recordings."
)
augment = click.option(
    "--augment", default=0, show_default=True, type=click.IntRange(min=0), help="Variations of every frame."
)
checkpoints = click.option(
    "--checkpoints",
    default=None,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the encoders' checkpoint files.",
)
feature_jobs = click.option(
    "--jobs", default=0, type=click.IntRange(min=0), help="Processes for features; 0: one a core, at most 8."
)
jobs = click.option("--jobs", default=0, type=click.IntRange(min=0), help="Processes; 0: one a core, at most 8.")
good_parts = several(
    click.option("--split", default="validation", show_default=True, help="Which split holds the good parts."),
    click.option(
        "--false-reject-rate",
        "rate",
        default=0.05,
        show_default=True,
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Share of good parts that may be rejected.",
    ),
)
"""Gives ``split`` and ``rate``."""
point = several(
    click.option("--backend", default="onnxruntime", show_default=True),
    click.option("--precision", default="fp32", show_default=True),
    click.option("--variant", default="base", show_default=True, help="A variant that the bundle carries."),
    click.option("--score-stride", default=1, show_default=True, type=int, help="Score every n-th pixel; 1: exact."),
)
"""Gives ``backend``, ``precision``, ``variant`` and ``score_stride``; without the options the exact float32 model."""
tuned_point = several(
    click.option("--backend", default=None, help="onnxruntime, openvino, tensorrt or tensorrt-rtx. Default: as tuned."),
    click.option("--precision", default=None, help="fp32, int8, fp16, bf16. Default: as tuned, else fp32."),
    click.option("--variant", default=None, help="A variant of the bundle. Default: as tuned, else base."),
    click.option("--score-stride", default=None, type=int, help="Score every n-th pixel; 1: exact. Default: as tuned."),
)
"""The same four, each None where the point that the bundle was tuned to decides."""
