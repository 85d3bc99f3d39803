"""What a watched camera has been through: counts for the summary of a run and for monitoring."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class CameraHealth:
    """Counts since the camera was opened.

    frames : delivered. dropped : taken by the camera but replaced by newer ones before they were asked for. degraded :
    delivered with a reason. broken : reports instead of a frame. faults : by kind, over all frames, dropped ones too.
    steps : of the ladder, by name. outages, longest_outage_s : troubles that took a step. state : ``ok | degraded``.
    events : the last things that happened, as (seconds since opening, words).
    """

    frames: int = 0
    dropped: int = 0
    degraded: int = 0
    broken: int = 0
    outages: int = 0
    longest_outage_s: float = 0.0
    state: str = "ok"
    reason: str = ""
    temperature_c: float | None = None
    faults: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=100))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "state": self.state,
            "reason": self.reason,
            "frames": self.frames,
            "dropped": self.dropped,
            "degraded": self.degraded,
            "broken": self.broken,
            "outages": self.outages,
            "longest_outage_s": round(self.longest_outage_s, 3),
            "temperature_c": self.temperature_c,
            "faults": dict(self.faults),
            "steps": dict(self.steps),
            "events": [[round(at, 3), text] for at, text in self.events],
        }

    def summary(self) -> str:
        """One line for people, empty where there is nothing to say."""
        told = [f"{count} x {name}" for name, count in self.steps.items()]
        told += [f"{count} x {kind}" for kind, count in self.faults.items()]
        if self.dropped:
            told.append(f"{self.dropped} frames replaced by newer ones")
        return "camera: " + ", ".join(told) if told else ""
