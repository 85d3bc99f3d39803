"""One run of a graph on random input: it loads, it runs, its answer is finite. Lean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.engines.targets import rows_of
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.backends import Session, load_session


def dry_run(bundle: Bundle, graph: str, backend: str, precision: str) -> Session:
    """Load one graph of ``bundle`` and run it once; the session.

    Raises
    ------
    EdgeAdError
        It does not load or run, or an output is not finite.
    """
    session = load_session(bundle, graph, backend, precision)
    low, _, high = rows_of(bundle, graph)
    for name, values in session.run(_probe(session.inputs, max(low, min(4, high)))).items():
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise EdgeAdError(
                f"{bundle.where}: graph {graph}: output '{name}' of random input is not finite",
                "finite values",
                "run edge-ad export again",
            )
    return session


def _probe(specs: Sequence[TensorSpec], rows: int) -> dict[str, NDArray[Any]]:
    """Random input of a graph's declared shapes: normal floats, zero integers."""
    rng = np.random.default_rng(0)
    out: dict[str, NDArray[Any]] = {}
    for spec in specs:
        shape = tuple(rows if isinstance(d, str) else d for d in spec.shape)
        dtype = np.dtype(spec.dtype)
        floating = np.issubdtype(dtype, np.floating)
        out[spec.name] = rng.standard_normal(shape).astype(dtype) if floating else np.zeros(shape, dtype)
    return out
