"""How far an engine may be from the float32 reference, a precision. Measured values stand in docs/engines.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from the reference.

    map_difference : largest difference of a map over the reference map's maximum; None: not asked. correlation : of
    each map, at least. mask_iou : of the masks of all golden frames together, at least. graph_error : relative error
    of each graph on the reference's inputs. score : relative distance from its limit within which a score decides
    nothing: there a rounding may tip it.
    """

    map_difference: float | None
    correlation: float
    mask_iou: float
    graph_error: float
    score: float


# A map within 1e-4 of the reference moves the border of a mask where the map is flat: OpenVINO in float32 overlaps by
# 0.998 on ten golden frames of `compact`.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-4, 0.999999, 0.995, 1e-3, 1e-4),
    "fp16": Tolerance(None, 0.9999, 0.98, 1e-2, 1e-2),
    "bf16": Tolerance(None, 0.999, 0.95, 1e-1, 3e-2),
    "int8": Tolerance(None, 0.99, 0.90, 3e-1, 1e-1),
}
