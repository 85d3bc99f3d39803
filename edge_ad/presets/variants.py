"""Variants of a preset, written as ``NAME: DIAL=VALUE, DIAL=VALUE; NAME: ...``.

Dials: ``layers`` (blocks of the point encoder that run), ``rgb-layers`` (of the colour encoder), ``groups``,
``group-size``, ``points-stride`` (groups are drawn from every n-th row and column), or any field of the tables ``rgb``,
``points`` and ``mappers`` as ``TABLE.FIELD=VALUE``. A spec without a name is called after its dials.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset, preset_from_dict

FIELDS = {
    "groups": ("points", "groups"),
    "group-size": ("points", "group_size"),
    "points-stride": ("points", "stride"),
    "pool": ("points", "pool"),
    "hidden": ("mappers", "hidden"),
}
TABLES = ("rgb", "points", "mappers")
DIALS = ("layers", "rgb-layers", *FIELDS)


def point_taps(layers: int, count: int = 3) -> list[int]:
    """Blocks (0-based) whose outputs are joined when only the first ``layers`` run, about evenly spaced from the last.

    The published choices: 12 -> 3, 7, 11; 8 -> 1, 4, 7; 4 -> 1, 2, 3 (METHOD section 2).
    """
    step = max(1, round(layers / count))
    taps = {layers - 1 - i * step for i in range(count)}
    return sorted(t for t in taps if t >= 0)


def parse_variants(text: str) -> dict[str, dict[str, str]]:
    """``text`` -> name -> dial -> value; raises EdgeAdError for what cannot be read."""
    out: dict[str, dict[str, str]] = {}
    for spec in filter(None, (s.strip() for s in text.split(";"))):
        head, colon, rest = spec.partition(":")
        named = bool(colon) and "=" not in head
        body = rest if named else spec
        dials: dict[str, str] = {}
        for pair in filter(None, (p.strip() for p in re.split(r",(?![^\[]*\])", body))):
            dial, equals, value = (t.strip() for t in pair.partition("="))
            if not equals or not dial or not value:
                raise EdgeAdError(f"--variants {spec}: '{pair}'", "DIAL=VALUE, for instance groups=256")
            if dial in dials:
                raise EdgeAdError(f"--variants {spec}: '{dial}' is given twice", "one value")
            dials[dial] = value
        if not dials:
            raise EdgeAdError(f"--variants {spec}: no dial", f"one of {', '.join(DIALS)}, or TABLE.FIELD")
        plain = "-".join(f"{k.replace('.', '-').replace('_', '-')}{v}" for k, v in dials.items())
        name = head.strip() if named else re.sub(r"[^A-Za-z0-9_.+-]", "", plain)
        if name in out:
            raise EdgeAdError(f"--variants: two named '{name}'", "names of their own")
        out[name] = dials
    if not out:
        raise EdgeAdError("--variants: nothing is named", "NAME: DIAL=VALUE, for instance 'light: groups=256'")
    return out


def vary(preset: Preset, dials: Mapping[str, str], where: str = "variant") -> Preset:
    """``preset`` with the dials of one variant.

    Raises
    ------
    EdgeAdError
        An unknown dial, a value of the wrong type or out of range.
    """
    values: dict[str, Any] = preset.to_dict()
    for dial, text in dials.items():
        value = _value(text)
        table, dot, field = dial.partition(".")
        if dial in ("layers", "rgb-layers"):
            if not isinstance(value, int) or value < 1:
                raise EdgeAdError(f"{where}: {dial}={text}", "a number of blocks, at least 1")
            _prune(values, preset, dial, value, where)
        elif dial in FIELDS:
            table, field = FIELDS[dial]
            values[table][field] = value
        elif dot and table in TABLES and field in values[table]:
            values[table][field] = value
        else:
            raise EdgeAdError(f"{where}: unknown dial '{dial}'", f"one of {', '.join(DIALS)}, or TABLE.FIELD=VALUE")
    return preset_from_dict(values, where=where)


def _prune(values: dict[str, Any], preset: Preset, dial: str, layers: int, where: str) -> None:
    if dial == "layers":
        if layers > preset.points.depth:
            raise EdgeAdError(f"{where}: layers={layers}", f"at most {preset.points.depth}, the point encoder's blocks")
        values["points"]["taps"] = point_taps(layers, len(preset.points.taps))
    elif preset.rgb.encoder == "dino-vit":
        if layers > preset.rgb.depth:
            raise EdgeAdError(f"{where}: rgb-layers={layers}", f"at most {preset.rgb.depth}, the encoder's blocks")
        values["rgb"]["blocks"] = layers
    else:
        kept = [t for t in preset.rgb.taps if t < layers]
        if not kept:
            raise EdgeAdError(
                f"{where}: rgb-layers={layers} leaves no tap of {list(preset.rgb.taps)}",
                f"more than {preset.rgb.taps[0]} blocks",
            )
        values["rgb"]["taps"] = kept


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
