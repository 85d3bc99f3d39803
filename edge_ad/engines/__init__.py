"""Engines: ONNX -> plan on the board that runs it, with an identity that is checked before every use. Lean."""

from edge_ad.engines.build import BACKENDS, BuiltEngine, build_engines
from edge_ad.engines.identity import PlanRecord, Sidecar, check, find_engine, read_sidecar

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
