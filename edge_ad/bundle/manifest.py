"""The manifest of a bundle: typed, checked field by field, and back to plain JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_ad.bundle.fields import (
    GraphSpec,
    TensorSpec,
    field_of,
    finite,
    graph_spec,
    optional,
    safe_name,
    safe_relative,
)
from edge_ad.bundle.variants import OperatingPoint, VariantEntry, point_from, variants_from
from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset, preset_from_dict

__all__ = [
    "MANIFEST",
    "PRECISIONS",
    "SCHEMA",
    "ClassEntry",
    "GraphSpec",
    "Manifest",
    "TensorSpec",
    "Threshold",
    "Thresholds",
    "manifest_from_dict",
    "safe_name",
    "safe_relative",
    "seal",
]

SCHEMA = 1
MANIFEST = "manifest.json"
PRECISIONS = ("fp32", "fp16", "int8", "bf16")
RUN_TIME_PRECISIONS = ("bf16",)
"""Precisions without graphs of their own: the backend computes the float32 graphs in them."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    """Everything that ``manifest.json`` says. ``thresholds`` is class -> slot -> precision -> Threshold.

    slot : :func:`edge_ad.bundle.variants.threshold_slot`. variants, point : see :mod:`edge_ad.bundle.variants`.
    """

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
    variants: Mapping[str, VariantEntry] = field(default_factory=dict)
    point: OperatingPoint | None = None

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
            "variants": {n: v.to_dict() for n, v in self.variants.items()},
            "point": None if self.point is None else self.point.to_dict(),
        }


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's fields with ``digest``: the SHA-256 of all others, so that an edited threshold is noticed."""
    rest = {k: v for k, v in values.items() if k != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return {**rest, "digest": hashlib.sha256(text.encode()).hexdigest()}


def _threshold(values: Any, where: str) -> Threshold:
    threshold = Threshold(
        value=field_of(values, "value", float, where),
        mask_value=field_of(values, "mask_value", float, where),
        n_parts=field_of(values, "n_parts", int, where),
        false_reject_rate=field_of(values, "false_reject_rate", float, where),
        set_at=field_of(values, "set_at", str, where),
        lost_share=optional(values, "lost_share", where),
        anchor_distance=optional(values, "anchor_distance", where),
        augmented=field_of(values, "augmented", bool, where) if "augmented" in values else False,
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
        variants = field_of(values, cls, dict, f"{where}: thresholds")
        for variant in variants:
            precisions = field_of(variants, variant, dict, f"{where}: thresholds.{cls}")
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
    schema = field_of(values, "schema", int, where)
    if schema > SCHEMA:
        raise EdgeAdError(f"{where}: manifest schema {schema}", f"at most {SCHEMA}", "update edge-ad on this machine")
    if schema < 1:
        raise EdgeAdError(f"{where}: manifest schema {schema}", f"1 to {SCHEMA}", "run edge-ad export again")
    finite({k: values.get(k) for k in ("geometry", "fusion", "provenance", "graphs")}, where)

    classes = []
    for i, entry in enumerate(field_of(values, "classes", list, where)):
        here = f"{where}: classes[{i}]"
        classes.append(
            ClassEntry(safe_name(field_of(entry, "name", str, here), here), field_of(entry, "prompt", str, here))
        )
    names = {c.name for c in classes}
    if not classes or len(names) != len(classes):
        raise EdgeAdError(f"{where}: classes {[c.name for c in classes]}", "at least one, each named once")

    files = field_of(values, "files", dict, where)
    for name, digest in files.items():
        safe_relative(name, where)
        if name == MANIFEST or name.split("/")[0] == "engines":
            raise EdgeAdError(f"{where}: files lists {name!r}", "neither the manifest itself nor engines")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise EdgeAdError(f"{where}: files[{name!r}] is {digest!r}", "a hexadecimal SHA-256")
    graph_values = field_of(values, "graphs", dict, where)
    graphs = {safe_name(n, where): graph_spec(g, f"{where}: graphs.{n}") for n, g in graph_values.items()}
    for name, graph in graphs.items():
        if graph.file not in files:
            raise EdgeAdError(f"{where}: graphs.{name} names {graph.file!r}, which has no hash", "a file in 'files'")
    geometry = field_of(values, "geometry", dict, where)
    # Since 0.1 without a new schema: a bundle without them has one variant and was never tuned.
    variants = variants_from(values.get("variants") or {}, files, PRECISIONS, where)
    point = values.get("point")
    return Manifest(
        name=field_of(values, "name", str, where),
        created_by=field_of(values, "created_by", str, where),
        preset=preset_from_dict(field_of(values, "preset", dict, where), where=f"{where}: preset"),
        classes=tuple(classes),
        geometry={k: field_of(geometry, k, float, f"{where}: geometry") for k in geometry},
        fusion=field_of(values, "fusion", dict, where),
        thresholds=_thresholds(field_of(values, "thresholds", dict, where), names, where),
        graphs=graphs,
        provenance=field_of(values, "provenance", dict, where),
        files=files,
        schema=schema,
        variants=variants,
        point=None if point is None else point_from(point, variants, PRECISIONS, where),
    )
