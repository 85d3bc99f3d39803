"""Plain tables to a :class:`Preset`, every field checked."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from edge_ad.errors import EdgeAdError
from edge_ad.presets.tables import Preset

T = TypeVar("T")


def preset_from_dict(values: dict[str, Any], where: str = "preset") -> Preset:
    """Build and validate a preset from plain tables."""
    sections = {name: cls for name, cls in get_type_hints(Preset).items() if name != "name"}
    unknown = sorted(set(values) - set(sections) - {"name"})
    if unknown:
        raise EdgeAdError(f"{where}: unknown table {', '.join(unknown)}", f"one of {', '.join(sections)}")
    missing = [s for s in sections if s not in values]
    if missing:
        raise EdgeAdError(
            f"{where}: missing table {', '.join(missing)}", "", 'start from another with extends = "compact"'
        )
    built = {n: _section(cls, f"{where}: {n}", values[n]) for n, cls in sections.items()}
    preset = Preset(name=str(values.get("name", "custom")), **built)
    if preset.mappers.condition == "class" and not (preset.rgb.lift > 0 and preset.points.lift > 0):
        raise EdgeAdError(
            f'{where}: mappers.condition = "class" with rgb.lift {preset.rgb.lift}, points.lift {preset.points.lift}',
            "both above 0: the constant channels carry the class's code",
        )
    for name in ("rim", "spread"):
        value = getattr(preset.fusion, name)
        if value < 0 or (value > 0 and preset.fusion.smooth_over != "valid"):
            raise EdgeAdError(
                f"{where}: fusion.{name} is {value}", 'pixels, 0 or more; above 0 with smooth_over = "valid"'
            )
    return preset


def _section(cls: type[T], where: str, values: Any) -> T:
    if not isinstance(values, dict):
        raise EdgeAdError(f"{where} is {values!r}", "a table of fields")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise EdgeAdError(f"{where}: unknown field {', '.join(unknown)}", f"one of {', '.join(fields)}")
    required = [n for n, f in fields.items() if f.default is dataclasses.MISSING]
    missing = [n for n in required if n not in values]
    if missing:
        raise EdgeAdError(f"{where}: missing field {', '.join(missing)}")
    clean: dict[str, Any] = {}
    for name, value in values.items():
        kind = str(fields[name].type)
        clean[name] = _coerce(f"{where}.{name}", kind, value)
        choices = getattr(cls, "CHOICES", {}).get(name)
        if choices and clean[name] not in choices:
            raise EdgeAdError(f"{where}.{name} is {value!r}", f"one of {', '.join(choices)}")
    return cls(**clean)


def _coerce(where: str, kind: str, value: Any) -> Any:
    ok: bool
    if kind == "bool":
        ok = isinstance(value, bool)
    elif kind == "int":
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif kind == "float":
        ok = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if ok else value
    elif kind.startswith("tuple"):
        ok = isinstance(value, (list, tuple))
        element = kind.removeprefix("tuple[").partition(",")[0]
        value = tuple(_coerce(where, element, v) for v in value) if ok else value
    else:
        ok = isinstance(value, str)
    if not ok:
        raise EdgeAdError(f"preset field {where} is {value!r}", f"a value of type {kind}")
    return value
