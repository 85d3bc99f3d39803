"""The manifest of a bundle: typed, checked field by field, and back to plain JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset, preset_from_dict

SCHEMA = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Class and golden names become file names, so they may hold neither separators nor a leading dot.
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


@dataclass(frozen=True)
class ClassEntry:
    """A class of parts and the prompt that embeds it (METHOD section 4)."""

    name: str
    prompt: str


@dataclass(frozen=True)
class Threshold:
    """When a part is anomalous, and how that was set.

    value : image scores above it are anomalous. mask_value : map values above it belong to the mask.
    n_parts : good parts it was set on. false_reject_rate : share of good parts it was set to reject, 0..1.
    set_at : ISO 8601 date and time.
    lost_share : largest share of lost depth that may pass; None: the preset's limit.
    anchor_distance : mean distance to the class's anchor beyond which a part is unlike it; None: not checked.
    augmented : whether augmented copies of the parts were among ``n_parts``.
    """

    value: float
    mask_value: float
    n_parts: int
    false_reject_rate: float
    set_at: str
    lost_share: float | None = None
    anchor_distance: float | None = None
    augmented: bool = False


Thresholds = dict[str, dict[str, dict[str, Threshold]]]


@dataclass(frozen=True)
class Manifest:
    """Everything that ``manifest.json`` says. ``thresholds`` is class -> variant -> precision -> Threshold."""

    name: str
    created_by: str
    preset: Preset
    classes: tuple[ClassEntry, ...]
    geometry: Mapping[str, float]
    fusion: Mapping[str, Any]
    thresholds: Thresholds
    graphs: Mapping[str, GraphSpec]
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; :func:`manifest_from_dict` reads them back."""
        return {
            "schema": self.schema,
            "name": self.name,
            "created_by": self.created_by,
            "preset": self.preset.to_dict(),
            "classes": [dataclasses.asdict(c) for c in self.classes],
            "geometry": dict(self.geometry),
            "fusion": dict(self.fusion),
            "thresholds": {
                c: {v: {p: dataclasses.asdict(t) for p, t in ps.items()} for v, ps in vs.items()}
                for c, vs in self.thresholds.items()
            },
            "graphs": {n: g.to_dict() for n, g in self.graphs.items()},
            "provenance": dict(self.provenance),
            "files": dict(self.files),
        }


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's fields with ``digest``: the SHA-256 of all others, so that an edited threshold is noticed."""
    rest = {k: v for k, v in values.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(text.encode()).hexdigest()}


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


def _of(values: Any, key: str, kind: type, where: str) -> Any:
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


def _optional(values: Any, key: str, where: str) -> float | None:
    """A finite number, or None where the field is null or absent."""
    return None if isinstance(values, dict) and values.get(key) is None else float(_of(values, key, float, where))


def _finite(value: Any, where: str) -> None:
    """Refuse NaN and infinities anywhere inside a JSON value: they are not JSON, and no threshold survives them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise EdgeAdError(f"{where} is {value}", "a finite number")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _finite(item, f"{where}.{key}")


def _tensor(values: Any, where: str) -> TensorSpec:
    shape = _of(values, "shape", list, where)
    for d in shape:
        fixed = isinstance(d, int) and not isinstance(d, bool) and d >= 0
        if not fixed and not (isinstance(d, str) and d):
            raise EdgeAdError(f"{where}: shape {shape!r}", "sizes, or a name for a free dimension")
    return TensorSpec(_of(values, "name", str, where), tuple(shape), _of(values, "dtype", str, where))


def _tensors(values: Any, key: str, where: str) -> tuple[TensorSpec, ...]:
    return tuple(_tensor(t, f"{where}.{key}[{i}]") for i, t in enumerate(_of(values, key, list, where)))


def _graph(values: Any, where: str) -> GraphSpec:
    return GraphSpec(
        file=safe_relative(_of(values, "file", str, where), where),
        inputs=_tensors(values, "inputs", where),
        outputs=_tensors(values, "outputs", where),
        meta=_of(values, "meta", dict, where),
    )


def _threshold(values: Any, where: str) -> Threshold:
    threshold = Threshold(
        value=_of(values, "value", float, where),
        mask_value=_of(values, "mask_value", float, where),
        n_parts=_of(values, "n_parts", int, where),
        false_reject_rate=_of(values, "false_reject_rate", float, where),
        set_at=_of(values, "set_at", str, where),
        lost_share=_optional(values, "lost_share", where),
        anchor_distance=_optional(values, "anchor_distance", where),
        augmented=_of(values, "augmented", bool, where) if "augmented" in values else False,
    )
    share = 0.0 if threshold.lost_share is None else threshold.lost_share
    if threshold.n_parts < 0 or not 0.0 <= threshold.false_reject_rate <= 1.0 or share < 0.0:
        raise EdgeAdError(
            f"{where}: n_parts {threshold.n_parts}, rate {threshold.false_reject_rate}, lost_share {share}",
            "n_parts >= 0, a rate in 0..1 and a share >= 0",
        )
    return threshold


def _thresholds(values: dict[str, Any], classes: set[str], where: str) -> Thresholds:
    out: Thresholds = {}
    for cls in values:
        if cls not in classes:
            raise EdgeAdError(
                f"{where}: thresholds of an unknown class {cls!r}", f"one of {', '.join(sorted(classes))}"
            )
        variants = _of(values, cls, dict, f"{where}: thresholds")
        for variant in variants:
            precisions = _of(variants, variant, dict, f"{where}: thresholds.{cls}")
            for precision in precisions:
                here = f"{where}: thresholds.{cls}.{variant}.{precision}"
                if precision not in PRECISIONS:
                    raise EdgeAdError(f"{here}: unknown precision", f"one of {', '.join(PRECISIONS)}")
                slot = out.setdefault(cls, {}).setdefault(variant, {})
                slot[precision] = _threshold(precisions[precision], here)
    return out


def manifest_from_dict(values: Any, where: str) -> Manifest:
    """Check and type a manifest; ``where`` starts every error ("bundle X").

    Raises
    ------
    EdgeAdError
        A schema newer than this program, a field that is missing or of the wrong type, an unsafe file
        name, a graph whose file has no hash.
    """
    schema = _of(values, "schema", int, where)
    if schema > SCHEMA:
        raise EdgeAdError(f"{where}: manifest schema {schema}", f"at most {SCHEMA}", "update edge-ad on this machine")
    if schema < 1:
        raise EdgeAdError(f"{where}: manifest schema {schema}", f"1 to {SCHEMA}", "run edge-ad export again")
    _finite({k: values.get(k) for k in ("geometry", "fusion", "provenance", "graphs")}, where)

    classes = []
    for i, entry in enumerate(_of(values, "classes", list, where)):
        here = f"{where}: classes[{i}]"
        classes.append(ClassEntry(safe_name(_of(entry, "name", str, here), here), _of(entry, "prompt", str, here)))
    names = {c.name for c in classes}
    if not classes or len(names) != len(classes):
        raise EdgeAdError(f"{where}: classes {[c.name for c in classes]}", "at least one, each named once")

    files = _of(values, "files", dict, where)
    for name, digest in files.items():
        safe_relative(name, where)
        if name == MANIFEST or name.split("/")[0] == "engines":
            raise EdgeAdError(f"{where}: files lists {name!r}", "neither the manifest itself nor engines")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise EdgeAdError(f"{where}: files[{name!r}] is {digest!r}", "a hexadecimal SHA-256")
    graph_values = _of(values, "graphs", dict, where)
    graphs = {safe_name(n, where): _graph(g, f"{where}: graphs.{n}") for n, g in graph_values.items()}
    for name, graph in graphs.items():
        if graph.file not in files:
            raise EdgeAdError(f"{where}: graphs.{name} names {graph.file!r}, which has no hash", "a file in 'files'")
    geometry = _of(values, "geometry", dict, where)
    return Manifest(
        name=_of(values, "name", str, where),
        created_by=_of(values, "created_by", str, where),
        preset=preset_from_dict(_of(values, "preset", dict, where), where=f"{where}: preset"),
        classes=tuple(classes),
        geometry={k: _of(geometry, k, float, f"{where}: geometry") for k in geometry},
        fusion=_of(values, "fusion", dict, where),
        thresholds=_thresholds(_of(values, "thresholds", dict, where), names, where),
        graphs=graphs,
        provenance=_of(values, "provenance", dict, where),
        files=files,
        schema=schema,
    )
