"""Engines: ONNX -> plan on the board that runs it, with an identity that is checked before every use. Lean.

Names are imported when they are first used: ``edge-ad doctor`` reads the table of known faults without NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ad.engines.build import BACKENDS, BuiltEngine, build_engines
    from edge_ad.engines.identity import PlanRecord, Sidecar, check, find_engine, read_sidecar

_WHERE = {
    "BACKENDS": "build",
    "BuiltEngine": "build",
    "build_engines": "build",
    "PlanRecord": "identity",
    "Sidecar": "identity",
    "check": "identity",
    "find_engine": "identity",
    "read_sidecar": "identity",
}

__all__ = [
    "BACKENDS",
    "BuiltEngine",
    "PlanRecord",
    "Sidecar",
    "build_engines",
    "check",
    "find_engine",
    "read_sidecar",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
