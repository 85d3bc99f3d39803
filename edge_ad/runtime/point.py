"""Which variant, score stride, precision and backend a run uses, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.bundle.variants import check_stride


def choose_point(
    bundle: Bundle,
    variant: str | None = None,
    stride: int | None = None,
    precision: str | None = None,
    backend: str | None = None,
) -> OperatingPoint:
    """The point that ``edge-ad tune`` wrote, each dial replaced where it is given; else the exact float32 one.

    Raises
    ------
    EdgeAdError
        A variant that the bundle does not carry, or a stride out of range.
    """
    tuned = bundle.point or OperatingPoint()
    point = OperatingPoint(
        variant if variant is not None else tuned.variant,
        check_stride(stride if stride is not None else tuned.stride),
        precision if precision is not None else tuned.precision,
        backend if backend is not None else tuned.backend,
    )
    bundle.as_variant(point.variant)
    return point


def measured_row(bundle: Bundle, point: OperatingPoint) -> Mapping[str, Any] | None:
    """What ``tune`` measured at a point, or None where it measured none there."""
    rows = bundle.point.measured.get("rows", []) if bundle.point else []
    for row in rows:
        if isinstance(row, dict) and all(
            row.get(k) == getattr(point, k) for k in ("variant", "stride", "precision", "backend")
        ):
            return row
    return None


def point_lines(bundle: Bundle, point: OperatingPoint) -> list[str]:
    """Lines for people: the point where it is not the plain one, and the price of whatever is not exact."""
    plain = OperatingPoint(backend=point.backend)
    row = measured_row(bundle, point)
    lines = []
    if str(point) != str(plain) or bundle.point is not None:
        tuned = bundle.point is not None and str(bundle.point) == str(point)
        lines.append(f"operating point: {point}" + (" (chosen by edge-ad tune)" if tuned else ""))
    if str(point) != str(plain):
        told = price(row) if row is not None else "not measured on this bundle (edge-ad tune measures it)"
        lines.append(f"not the exact float32 model; its price: {told}")
    return lines


def price(row: Mapping[str, Any]) -> str:
    """``I-AUROC 0.971 (exact 0.980), AUPRO@30 % ...``, or how well its map agrees with the exact one."""
    names = {"i_auroc": "I-AUROC", "aupro_30": "AUPRO@30 %", "map_correlation": "map correlation with the exact one"}
    exact = row.get("exact") or {}
    told = []
    for key, name in names.items():
        if isinstance(row.get(key), (int, float)):
            beside = f" (exact {exact[key]:.3f})" if isinstance(exact.get(key), (int, float)) else ""
            told.append(
                f"{name} {row[key]:.4f}{beside}" if key == "map_correlation" else f"{name} {row[key]:.3f}{beside}"
            )
    return ", ".join(told) or "unknown"
