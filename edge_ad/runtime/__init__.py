"""The runtime: geometry, point operations, backends, scoring, masks. Never imports torch or onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_ad.runtime.detector import Detector
    from edge_ad.runtime.load import load_detector

__all__ = ["Detector", "load_detector"]


def __getattr__(name: str) -> Any:
    if name == "Detector":
        from edge_ad.runtime.detector import Detector

        return Detector
    if name == "load_detector":
        from edge_ad.runtime.load import load_detector

        return load_detector
    raise AttributeError(f"module 'edge_ad.runtime' has no attribute '{name}'")
