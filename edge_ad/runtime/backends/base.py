"""What every backend offers, and the check of what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle.manifest import GraphSpec, TensorSpec
from edge_ad.errors import EdgeAdError


class Session(Protocol):
    """One loaded graph. ``run`` may be called from any one thread at a time.

    A backend whose sessions take several callers at once has the attribute ``concurrent = True``.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs by name, shape (free dimensions are strings) and NumPy dtype name."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs, likewise."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output of one run; raises EdgeAdError for an input of another name, shape or dtype."""


def contiguous(
    where: str, specs: tuple[TensorSpec, ...], inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The inputs, C-contiguous, once their names, dtypes and fixed dimensions were checked.

    Raises
    ------
    EdgeAdError
        What was found and what the graph expects.
    """
    names = {s.name for s in specs}
    if set(inputs) != names:
        raise EdgeAdError(f"{where}: inputs {', '.join(sorted(inputs))}", ", ".join(sorted(names)))
    out = {}
    for spec in specs:
        array = inputs[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(d, str) or d == n for d, n in zip(spec.shape, array.shape)
        )
        if not fits or array.dtype != np.dtype(spec.dtype):
            shape = ", ".join(str(d) for d in spec.shape)
            raise EdgeAdError(f"{where}: input '{spec.name}' is {array.dtype} {array.shape}", f"{spec.dtype} ({shape})")
        # Not ascontiguousarray: it would turn a scalar into a vector.
        out[spec.name] = np.require(array, requirements="C")
    return out


def check_threads(threads: int | None) -> None:
    """Raise EdgeAdError unless it is a number of threads, or None."""
    if threads is not None and threads < 1:
        raise EdgeAdError(f"{threads} threads", "at least 1")


def agree(where: str, spec: GraphSpec, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a graph or plan whose tensors are not the ones that the manifest promises (by name)."""
    for kind, found, expected in (("inputs", inputs, spec.inputs), ("outputs", outputs, spec.outputs)):
        if {t.name for t in found} != {t.name for t in expected}:
            raise EdgeAdError(
                f"{where} has {kind} {', '.join(t.name for t in found)}",
                f"{', '.join(t.name for t in expected)}, as its manifest says",
                "run edge-ad export again",
            )
