"""Presets: every size and choice of the method, named, in TOML files beside this module.

``load_preset("compact")`` reads a shipped preset, ``load_preset("my.toml")`` a file of the user's.
A file may start from another with ``extends = "compact"`` and name only what differs.
"""

from edge_ad.presets.parse import preset_from_dict
from edge_ad.presets.shipped import SHIPPED, load_preset
from edge_ad.presets.tables import (
    CODE,
    EFFICIENTNET_LITE0_CHANNELS,
    Fusion,
    Geometry,
    Limits,
    Mappers,
    Octa,
    Points,
    Preset,
    Rgb,
    Text,
    Training,
)

__all__ = [
    "CODE",
    "EFFICIENTNET_LITE0_CHANNELS",
    "SHIPPED",
    "Fusion",
    "Geometry",
    "Limits",
    "Mappers",
    "Octa",
    "Points",
    "Preset",
    "Rgb",
    "Text",
    "Training",
    "load_preset",
    "preset_from_dict",
]
