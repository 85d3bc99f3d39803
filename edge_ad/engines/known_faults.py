"""TensorRT versions and boards with reported faults: warned about by name, never a reason to trust or to refuse.

The golden frames decide about an engine (:mod:`edge_ad.engines.gate`); this table says what to look at when they fail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownFault:
    """Versions in ``lowest <= version < below`` with a reported fault, on one compute capability or (None) on all."""

    lowest: tuple[int, ...]
    below: tuple[int, ...]
    compute_capability: tuple[int, int] | None
    text: str


KNOWN_FAULTS = (
    KnownFault(
        (10, 3),
        (10, 5),
        None,
        "is reported to give wrong results on vision transformers, silently (JetPack 6.1 and 6.2 bring 10.3)",
    ),
    KnownFault((10, 13, 3), (10, 13, 4), (8, 7), "is reported to hold no kernels for SM 8.7 (Orin)"),
    KnownFault((10,), (10, 16, 2), (12, 0), "is reported to miscompile fused attention on SM 12.0"),
)


def version_tuple(text: str) -> tuple[int, ...]:
    """Leading numbers of a version: ``"10.13.3.9.post1"`` -> ``(10, 13, 3, 9)``."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def known_faults(backend: str, version: str, capability: tuple[int, int] | None) -> tuple[str, ...]:
    """What is known against this TensorRT on this device, one sentence each; empty for most.

    Parameters
    ----------
    capability : compute capability of the device; None where it is not known: then only faults of every device.
    """
    if backend != "tensorrt":
        return ()
    number = version_tuple(version)
    return tuple(
        f"TensorRT {version} {fault.text}"
        for fault in KNOWN_FAULTS
        if number
        and fault.lowest <= number < fault.below
        and (fault.compute_capability is None or fault.compute_capability == capability)
    )
