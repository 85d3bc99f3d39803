"""The data that flows: ``Camera -> Frame -> Sample -> ... -> Result -> outputs``. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics in pixels; ``distortion`` are OpenCV's coefficients or empty."""

    width: int
    height: int
    fx: float
    fy: float
    ppx: float
    ppy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise EdgeAdError(f"intrinsics: size {self.width} x {self.height}", "both > 0")
        if not (self.fx > 0 and self.fy > 0):
            raise EdgeAdError(f"intrinsics: fx={self.fx}, fy={self.fy}", "both > 0 (pixels)")


@dataclass(frozen=True)
class Extrinsics:
    """Depth camera to colour camera: ``p_colour = rotation @ p_depth + translation``.

    rotation : 3 x 3, row by row. translation : metres.
    """

    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    translation: tuple[float, ...] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if len(self.rotation) != 9 or len(self.translation) != 3:
            found = f"extrinsics: {len(self.rotation)} and {len(self.translation)} numbers"
            raise EdgeAdError(found, "a rotation of 9 numbers, row by row, and a translation of 3, in metres")


@dataclass(frozen=True)
class Frame:
    """One moment as the camera gave it, colour and depth on the same pixel grid.

    Depth that is still on the depth camera's own grid comes with ``depth_intrinsics`` and ``extrinsics``; it is then
    (h, w) of its own and is registered to colour where the cloud is made.

    Attributes
    ----------
    colour : (H, W, 3) uint8, RGB.
    depth : (H, W) uint16 or float32 raw depth, or None when ``xyz`` is given.
    depth_scale_m : metres per unit of ``depth``.
    xyz : (H, W, 3) float32 metres in the camera frame, zeros where unknown, or None.
    intrinsics : needed with ``depth``; with ``xyz`` it may be None.
    sequence : number given by the source, counting from 0.
    source : where it came from, for people (URI or file name).
    name : short name, unique within the source (used for files written about it).
    class_name : class of the part if the source knows it, else None.
    colour_timestamp_s, depth_timestamp_s : seconds on ``clock``.
    clock : name of the clock domain (``"system"``, ``"hardware"``, ``"none"``).
    flags : short notes by the source, e.g. ``("repeated",)``.
    health : why the source cannot vouch for this frame; a result about it is ``degraded`` and never ``normal``.
    depth_intrinsics, extrinsics : set only when ``depth`` is not yet on the colour grid.
    metadata : what the source knows beside the pictures (serial, preset's hash, exposure, ...), plain JSON types.
    """

    colour: U8
    depth: NDArray[Any] | None = None
    depth_scale_m: float = 0.001
    xyz: F32 | None = None
    intrinsics: Intrinsics | None = None
    sequence: int = 0
    source: str = ""
    name: str = ""
    class_name: str | None = None
    colour_timestamp_s: float = 0.0
    depth_timestamp_s: float = 0.0
    clock: str = "none"
    flags: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    depth_intrinsics: Intrinsics | None = None
    extrinsics: Extrinsics | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the colour image."""
        return int(self.colour.shape[0]), int(self.colour.shape[1])


@dataclass(frozen=True)
class SampleTransform:
    """Exact relation between a camera's pixel grid and the square sample grid.

    The window with top-left corner ``(y0, x0)`` and side ``side`` (camera pixels; it may reach beyond
    the image, where it is padded) is mapped onto ``size x size`` sample pixels.
    Sample pixel i takes the camera pixel ``y0 + floor((i + 0.5) * side / size)`` (nearest).
    """

    y0: int
    x0: int
    side: int
    size: int
    frame_height: int
    frame_width: int

    def source_rows(self) -> I64:
        """(size,) camera rows of the sample rows; rows outside the image are out of range."""
        return self.y0 + self._nearest()

    def source_cols(self) -> I64:
        """(size,) camera columns of the sample columns; may be out of range."""
        return self.x0 + self._nearest()

    def _nearest(self) -> I64:
        # Integer arithmetic: floor((i + 0.5) * side / size) without rounding.
        i = np.arange(self.size, dtype=np.int64)
        return ((2 * i + 1) * self.side) // (2 * self.size)


@dataclass(frozen=True)
class Sample:
    """What the networks see: one square crop of a frame.

    rgb : (3, S, S) float32, ImageNet-normalised. xyz : (S, S, 3) float32 metres, 0 where unknown.
    valid : (S, S) bool, the pixels that are scored (METHOD ``M_xyz``).
    lost : (S, S) bool, pixels that should have depth and have none.
    """

    rgb: F32
    xyz: F32
    valid: Bool
    lost: Bool
    transform: SampleTransform
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Region:
    """One connected anomalous region on the camera's grid.

    box : (x0, y0, x1, y1) camera pixels, half open. area_px, area_mm2: size. peak: highest map value.
    position_mm : centre (x, y, z) in the camera frame; extent_mm: its size along x, y, z.
    kind : ``"anomaly"`` or ``"lost-depth"``.
    """

    box: tuple[int, int, int, int]
    area_px: int
    area_mm2: float
    peak: float
    position_mm: tuple[float, float, float] | None
    extent_mm: tuple[float, float, float] | None
    kind: str = "anomaly"


@dataclass(frozen=True)
class Result:
    """What is known about one frame after inspection.

    map, mask : (H, W) float32 / bool on the camera's own pixel grid (None when ``invalid`` before scoring).
    sample_map, sample_mask, valid : (S, S) on the sample grid.
    decision : ``"normal" | "anomalous" | "invalid"``. ``"normal"`` needs health ``"ok"``.
    health : ``"ok" | "degraded"``, with ``reasons``.
    times_ms : milliseconds a stage.
    """

    decision: str
    health: str
    reasons: tuple[str, ...]
    class_name: str
    score: float
    threshold: float
    lost_share: float = 0.0
    map: F32 | None = None
    mask: Bool | None = None
    sample_map: F32 | None = None
    sample_mask: Bool | None = None
    valid: Bool | None = None
    lost: Bool | None = None
    regions: tuple[Region, ...] = ()
    times_ms: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    name: str = ""
    sequence: int = 0
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result without its pictures, as plain JSON types."""
        return {
            "name": self.name,
            "sequence": self.sequence,
            "source": self.source,
            "decision": self.decision,
            "health": self.health,
            "reasons": list(self.reasons),
            "class": self.class_name,
            "score": None if np.isnan(self.score) else round(float(self.score), 6),
            "threshold": None if np.isnan(self.threshold) else round(float(self.threshold), 6),
            "lost_share": round(float(self.lost_share), 4),
            "regions": [
                {
                    "kind": r.kind,
                    "box": list(r.box),
                    "area_px": r.area_px,
                    "area_mm2": round(r.area_mm2, 2),
                    "peak": round(r.peak, 6),
                    "position_mm": None if r.position_mm is None else [round(v, 1) for v in r.position_mm],
                    "extent_mm": None if r.extent_mm is None else [round(v, 1) for v in r.extent_mm],
                }
                for r in self.regions
            ],
            "times_ms": {k: round(v, 3) for k, v in self.times_ms.items()},
            "flags": list(self.flags),
        }


def degraded(result: Result, reasons: tuple[str, ...]) -> Result:
    """``result`` with health ``degraded`` for ``reasons`` (none: as it is). What was normal is invalid then; an anomaly
    stays one, so that a failing camera can neither pass a part nor hide a defect (DESIGN, "What a result says")."""
    if not reasons:
        return result
    decision = "invalid" if result.decision == "normal" else result.decision
    return replace(result, decision=decision, health="degraded", reasons=result.reasons + reasons)
