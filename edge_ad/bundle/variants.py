"""Variants of a bundle's model, and the point that the box was tuned to.

A **variant** is the same model with other sizes (blocks run, points, groups) and mappers fitted for them; it has
graphs, statistics and thresholds of its own. ``base`` is the model as the preset names it. A **point** is a variant
with a score stride, a precision and a backend: what ``edge-ad tune`` chose, and what ``edge-ad run`` uses by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_ad.bundle.fields import GraphSpec, field_of, finite, graph_spec, safe_name
from edge_ad.errors import EdgeAdError
from edge_ad.presets import Preset, preset_from_dict

BASE = "base"
_STRIDE_MARK = "+stride"


@dataclass(frozen=True)
class VariantEntry:
    """What a variant has of its own; the fields mean what they mean in the manifest.

    changes : what differs from the preset, in the words that ``fit`` was given.
    """

    changes: str
    preset: Preset
    geometry: Mapping[str, float]
    fusion: Mapping[str, Any]
    graphs: Mapping[str, GraphSpec]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "changes": self.changes,
            "preset": self.preset.to_dict(),
            "geometry": dict(self.geometry),
            "fusion": dict(self.fusion),
            "graphs": {n: g.to_dict() for n, g in self.graphs.items()},
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True)
class OperatingPoint:
    """The dials of a run.

    variant : name of a variant, or ``base``. stride : every so many-th pixel is scored, the rest interpolated; 1: all,
    which is exact. measured : what ``tune`` measured there (JSON), with its conditions.
    """

    variant: str = BASE
    stride: int = 1
    precision: str = "fp32"
    backend: str = "onnxruntime"
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """``base, stride 2, fp32, onnxruntime``."""
        return f"{self.variant}, stride {self.stride}, {self.precision}, {self.backend}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**dataclasses.asdict(self), "measured": dict(self.measured)}


def threshold_slot(variant: str, stride: int = 1) -> str:
    """Under which name a manifest keeps the thresholds of a variant scored at a stride."""
    return variant if stride == 1 else f"{variant}{_STRIDE_MARK}{stride}"


def check_stride(stride: int) -> int:
    """``stride`` if it can be used; raises EdgeAdError."""
    if not 1 <= stride <= 16:
        raise EdgeAdError(f"score stride {stride}", "a whole number from 1 to 16")
    return stride


def variants_from(values: Any, files: Mapping[str, Any], reserved: tuple[str, ...], where: str) -> dict[str, Any]:
    """Check and type ``manifest.variants``; raises EdgeAdError with the field at fault."""
    out: dict[str, VariantEntry] = {}
    if not isinstance(values, dict):
        raise EdgeAdError(f"{where}: variants is a {type(values).__name__}", "a JSON object")
    for name in values:
        here = f"{where}: variants.{name}"
        check_name(name, reserved, where)
        entry = values[name]
        finite({k: entry.get(k) for k in ("geometry", "fusion", "provenance", "graphs")}, here)
        graphs = {g: graph_spec(v, f"{here}.{g}") for g, v in field_of(entry, "graphs", dict, here).items()}
        for graph, spec in graphs.items():
            if spec.file not in files:
                raise EdgeAdError(f"{here}.{graph} names {spec.file!r}, which has no hash", "a file in 'files'")
        geometry = field_of(entry, "geometry", dict, here)
        out[name] = VariantEntry(
            changes=field_of(entry, "changes", str, here),
            preset=preset_from_dict(field_of(entry, "preset", dict, here), where=f"{here}: preset"),
            geometry={k: field_of(geometry, k, float, f"{here}: geometry") for k in geometry},
            fusion=field_of(entry, "fusion", dict, here),
            graphs=graphs,
            provenance=field_of(entry, "provenance", dict, here),
        )
    return out


def check_name(name: str, reserved: tuple[str, ...], where: str) -> str:
    """``name`` if a variant may be called so."""
    safe_name(name, f"{where}: variant")
    if name == BASE or name in reserved or _STRIDE_MARK in name:
        raise EdgeAdError(
            f"{where}: a variant named '{name}'", f"a name that is none of {', '.join((BASE, *reserved))}"
        )
    return name


def point_from(values: Any, variants: Mapping[str, Any], precisions: tuple[str, ...], where: str) -> OperatingPoint:
    """Check and type ``manifest.point``; raises EdgeAdError with the field at fault."""
    here = f"{where}: point"
    point = OperatingPoint(
        variant=field_of(values, "variant", str, here),
        stride=check_stride(field_of(values, "stride", int, here)),
        precision=field_of(values, "precision", str, here),
        backend=field_of(values, "backend", str, here),
        measured=field_of(values, "measured", dict, here),
    )
    finite(dict(point.measured), here)
    if point.variant != BASE and point.variant not in variants:
        raise EdgeAdError(f"{here}: unknown variant '{point.variant}'", f"one of {', '.join((BASE, *variants))}")
    if point.precision not in precisions:
        raise EdgeAdError(f"{here}: unknown precision '{point.precision}'", f"one of {', '.join(precisions)}")
    return point
