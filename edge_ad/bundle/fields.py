"""Reading the fields of a manifest: plain JSON in, checked values and the specs of graphs out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edge_ad.errors import EdgeAdError

# Class, variant and golden names become file names, so they may hold neither separators nor a leading dot.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .+-]{0,99}")


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and NumPy dtype name of a graph's input or output; a free dimension is a string."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


@dataclass(frozen=True)
class GraphSpec:
    """One exported graph: its float32 file within the bundle, its tensors, and free notes for its users.

    ``meta["rows"] = {"min": a, "opt": b, "max": c}`` bounds the free dimensions when an engine is built.
    """

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "file": self.file,
            "inputs": [t.to_dict() for t in self.inputs],
            "outputs": [t.to_dict() for t in self.outputs],
            "meta": dict(self.meta),
        }


def safe_relative(name: str, where: str) -> str:
    """``name`` if it is a plain relative path with forward slashes that stays inside the bundle.

    Raises
    ------
    EdgeAdError
        Absolute, with ``..``, a backslash, a drive or a control character, or not in its shortest form.
    """
    path = PurePosixPath(name)
    plain = name not in ("", ".") and str(path) == name and not path.is_absolute() and ".." not in path.parts
    if not plain or any(c in name for c in "\\:") or any(ord(c) < 32 for c in name):
        raise EdgeAdError(f"{where}: unsafe file name {name!r}", "a relative path inside the bundle")
    return name


def safe_name(name: str, where: str) -> str:
    """``name`` if it can be part of a file name (letters, digits, space, ``_ . + -``)."""
    if not _NAME.fullmatch(name) or name.strip() != name:
        raise EdgeAdError(f"{where}: name {name!r}", "letters, digits, spaces and _ . + -, not starting with a dot")
    return name


def field_of(values: Any, key: str, kind: type, where: str) -> Any:
    """``values[key]``, checked to be of a JSON kind."""
    if not isinstance(values, dict):
        raise EdgeAdError(f"{where} is a {type(values).__name__}", "a JSON object")
    if key not in values:
        raise EdgeAdError(f"{where}: the field '{key}' is missing", "", "run edge-ad export again")
    value = values[key]
    number = kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is int and number and isinstance(value, int):
        return value
    if kind in (int, float) or not isinstance(value, kind):
        raise EdgeAdError(f"{where}: {key} is {value!r}", f"a JSON value of type {kind.__name__}")
    return value


def optional(values: Any, key: str, where: str) -> float | None:
    """A finite number, or None where the field is null or absent."""
    return None if isinstance(values, dict) and values.get(key) is None else float(field_of(values, key, float, where))


def finite(value: Any, where: str) -> None:
    """Refuse NaN and infinities anywhere inside a JSON value: they are not JSON, and no threshold survives them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise EdgeAdError(f"{where} is {value}", "a finite number")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        finite(item, f"{where}.{key}")


def _tensor(values: Any, where: str) -> TensorSpec:
    shape = field_of(values, "shape", list, where)
    for d in shape:
        fixed = isinstance(d, int) and not isinstance(d, bool) and d >= 0
        if not fixed and not (isinstance(d, str) and d):
            raise EdgeAdError(f"{where}: shape {shape!r}", "sizes, or a name for a free dimension")
    return TensorSpec(field_of(values, "name", str, where), tuple(shape), field_of(values, "dtype", str, where))


def _tensors(values: Any, key: str, where: str) -> tuple[TensorSpec, ...]:
    return tuple(_tensor(t, f"{where}.{key}[{i}]") for i, t in enumerate(field_of(values, key, list, where)))


def graph_spec(values: Any, where: str) -> GraphSpec:
    return GraphSpec(
        file=safe_relative(field_of(values, "file", str, where), where),
        inputs=_tensors(values, "inputs", where),
        outputs=_tensors(values, "outputs", where),
        meta=field_of(values, "meta", dict, where),
    )
