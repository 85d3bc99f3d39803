"""The paper's networks in PyTorch, written literally: the reference that every faster form is held against.

The three loaders are re-exported lazily, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_ad.models.clip_text import load_text_encoder
    from edge_ad.models.pointmae import load_point_encoder
    from edge_ad.models.vit import load_rgb_encoder

__all__ = ["load_point_encoder", "load_rgb_encoder", "load_text_encoder"]

_HOMES = {
    "load_point_encoder": "edge_ad.models.pointmae",
    "load_rgb_encoder": "edge_ad.models.vit",
    "load_text_encoder": "edge_ad.models.clip_text",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
