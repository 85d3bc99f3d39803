"""What the device pipeline takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, U8, Bool, SampleTransform
from edge_ad.runtime.device.frame import Lease

STAGES = (
    ("device points", "points begin", "points end"),
    ("device point encoder", "points end", "point encoder end"),
    ("device rgb encoder", "rgb begin", "rgb end"),
    ("device tokens + score + map", "joined", "end"),
    ("device total", "points begin", "end"),
)
"""Stage of a part, and the marks between which it runs."""
FRAME_STAGES = (("device cloud", "begun", "made"), ("device areas", "joined", "done"))
"""Stage of a frame, and the events between which it runs."""


@dataclass(frozen=True)
class DeviceOptions:
    """How the pipeline works.

    score : ``fused`` (kernels) or ``plan`` (the score plan; the only one for ``cfm``). half : FP16 storage of tables
    and operands in ``fused``. slots : parts in flight. graphs : record CUDA graphs. distances : fetch every pixel's
    distances (calibration wants them, inspection does not). timing : time the stages by events.
    """

    score: str = "fused"
    half: bool = False
    slots: int = 2
    graphs: bool = True
    distances: bool = False
    timing: bool = True

    def __post_init__(self) -> None:
        if self.score not in ("fused", "plan"):
            raise EdgeAdError(f"device score '{self.score}'", "fused or plan")
        if self.slots < 1:
            raise EdgeAdError(f"{self.slots} slots", "at least 1")


@dataclass(frozen=True)
class Cut:
    """A part that the device cuts from the camera's images.

    frame : whose it is. flags : (H, W) uint8, 1 foreground, 2 lost depth, as the host found them; None: the device's.
    """

    frame: Lease
    flags: U8 | None
    transform: SampleTransform


@dataclass(frozen=True)
class DeviceScore:
    """What comes back of a part.

    map : smoothed (S, S) float32. mask, valid, lost : (S, S) bool. anchor_distance : mean distance to the class's
    anchor (NaN without text). anomalous : score above its limit.
    """

    map: F32
    mask: Bool
    valid: Bool
    lost: Bool
    class_index: int
    score: float
    anchor_distance: float
    anomalous: bool
    lost_share: float
    distances: dict[str, F32] = field(default_factory=dict)
    times_ms: dict[str, float] = field(default_factory=dict)
