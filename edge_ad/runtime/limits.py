"""Decision limits of a class, as the bundle holds them."""

from __future__ import annotations

from dataclasses import dataclass

from edge_ad.bundle import BASE, Bundle

NAN = float("nan")


@dataclass(frozen=True)
class Limits:
    """Decision limits of one class: NaN means that it was never set."""

    score: float = NAN
    mask: float = NAN
    lost_share: float = NAN
    anchor_distance: float = NAN


def describe(bundle: Bundle, precision: str) -> str:
    """``fp32``, or with the variant and stride where they are not the plain ones."""
    told = [precision]
    told += [f"variant {bundle.variant}"] if bundle.variant != BASE else []
    told += [f"score stride {bundle.stride}"] if bundle.stride != 1 else []
    return ", ".join(told)


def calibrate_options(bundle: Bundle, precision: str) -> str:
    """What ``edge-ad calibrate thresholds`` must be told to set the limits that this detector reads."""
    told = f" --precision {precision}" if precision != "fp32" else ""
    told += f" --variant '{bundle.variant}'" if bundle.variant != BASE else ""
    return told + (f" --score-stride {bundle.stride}" if bundle.stride != 1 else "")


def read_limits(bundle: Bundle, class_name: str, precision: str) -> Limits:
    """The limits that calibration set for a class at a precision."""
    entry = bundle.threshold(class_name, precision)
    if entry is None:
        return Limits()
    lost, anchor = (NAN if v is None else v for v in (entry.lost_share, entry.anchor_distance))
    return Limits(entry.value, entry.mask_value, lost, anchor)
