"""Preset files: the shipped ones by name, the user's by path, each with what it extends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.presets.parse import preset_from_dict
from edge_ad.presets.tables import Preset

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).parent


def load_preset(name_or_path: str) -> Preset:
    """Read a shipped preset by name or a preset file by path.

    Raises
    ------
    EdgeAdError
        No such preset, not TOML, or a field that is unknown, missing or of the wrong type.
    """
    path = _locate(name_or_path)
    return preset_from_dict(_read(path), where=path.name)


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    if path.resolve() in seen:
        raise EdgeAdError(f"{path} extends itself", "a chain of presets that ends")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise EdgeAdError(f"{path} is not TOML ({e})") from None
    base_name = values.pop("extends", None)
    if base_name is None:
        return values
    base = _read(_locate(str(base_name)), (*seen, path.resolve()))
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            base[key] = {**base[key], **value}
        else:
            base[key] = value
    return base


def _locate(name_or_path: str) -> Path:
    shipped = SHIPPED / f"{name_or_path}.toml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
    raise EdgeAdError(f"no preset '{name_or_path}'", f"one of {names}, or a .toml file")
