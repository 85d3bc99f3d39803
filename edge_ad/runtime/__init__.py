"""The runtime: geometry, point operations, backends, scoring, masks. Never imports torch or onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_ad.runtime.detector import Detector, load_detector

__all__ = ["Detector", "load_detector"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from edge_ad.runtime import detector

        return getattr(detector, name)
    raise AttributeError(f"module 'edge_ad.runtime' has no attribute '{name}'")
