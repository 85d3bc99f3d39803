"""Synthetic parts on a moving belt: they come in at the left, may stop in the middle, and leave at the right.

Needs no hardware and no data. Triggers, watchdogs and recorders see what a line shows: an empty belt, parts cut off by
the frame, parts in full view, moving or still.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, Frame
from edge_ad.sensors import AlwaysOpen, paced
from edge_ad.sensors.synthetic import classes_of
from edge_ad.sensors.uri import Uri

if TYPE_CHECKING:
    from edge_ad.data.synthetic.render import Pose

DISTANCE_MM = 420.0
TILT_DEG = 1.5  # no camera hangs quite straight
_ATTEMPTS = 8


def open_uri(uri: Uri) -> BeltCamera:
    """``belt:[CLASS][?seed=0&parts=3&frames=0&defects=0.3&fps=15&speed=150&stop=0&gap=260&realtime=0]``.

    ``speed``: mm a second; ``stop``: seconds that the belt stands with a part in the middle; ``gap``: mm to the next.
    ``parts=0`` never ends; ``frames`` ends earlier. Raises EdgeAdError.
    """
    uri.only("seed", "parts", "frames", "defects", "fps", "speed", "stop", "gap", "realtime")
    return BeltCamera(
        classes_of(uri),
        seed=uri.integer("seed", 0),
        parts=uri.integer("parts", 3),
        frames=uri.integer("frames", 0),
        defects=uri.number("defects", 0.3, 0, 1),
        belt=Belt(
            fps=uri.number("fps", 15, 0.1, 1000),
            speed=uri.number("speed", 150, 1, 10000),
            stop=uri.number("stop", 0, 0, 3600),
            gap=uri.number("gap", 260, 240, 10000),
        ),
        realtime=uri.switch("realtime"),
        uri=str(uri),
    )


@dataclass(frozen=True)
class Belt:
    """How the belt moves. fps : frames a second; speed : mm a second; stop : seconds; gap : mm."""

    fps: float
    speed: float
    stop: float
    gap: float

    def at(self, frame: int) -> tuple[int, float, float]:
        """(number of the part in view, its place in mm right of the middle, mm that the belt has moved)."""
        cycle = self.gap / self.speed + self.stop
        part, time = divmod(frame / self.fps, cycle)
        half = self.gap / (2 * self.speed)
        moved = self.speed * (time if time < half else max(half, time - self.stop))
        return int(part), moved - self.gap / 2, part * self.gap + moved

    def frames(self, parts: int) -> int:
        """Frames until so many parts have passed."""
        return int(np.ceil(parts * (self.gap / self.speed + self.stop) * self.fps))


class BeltCamera(AlwaysOpen):
    """Frames of the belt. Frame i depends on the seed and i alone; its name ends with the part's defect or ``good``."""

    def __init__(
        self,
        classes: tuple[str, ...],
        *,
        seed: int,
        parts: int,
        frames: int,
        defects: float,
        belt: Belt,
        realtime: bool = False,
        uri: str = "belt:",
    ) -> None:
        self._classes = classes
        self._seed = seed
        self._frames = min(f for f in (frames or 1 << 62, belt.frames(parts) if parts else 1 << 62))
        self._defects = defects
        self._belt = belt
        self._realtime = realtime
        self._uri = uri

    def __iter__(self) -> Iterator[Frame]:
        """Frames with xyz in metres and timestamps on the belt's own clock."""
        return paced(self._pictures(), self._belt.fps if self._realtime else 0)

    def describe(self) -> str:
        """One line for people."""
        b = self._belt
        stop = f", stopping {b.stop:g} s" if b.stop else ""
        return f"{self._uri}: {', '.join(self._classes)} on a belt of {b.speed:g} mm/s{stop}, {b.fps:g} frames a second"

    def _pictures(self) -> Iterator[Frame]:
        from edge_ad.data.synthetic.render import INTRINSICS, render
        from edge_ad.data.synthetic.sensor import colour_image, point_cloud

        shown, view = None, None
        part = _Part(self._classes, self._seed, -1, self._defects)
        for i in range(self._frames):
            number, place, moved = self._belt.at(i)
            if number != part.number:
                part = _Part(self._classes, self._seed, number, self._defects)
            if view is None or shown != (number, place):
                # While the belt stands only the noise is new.
                shown, view = (number, place), render(part.maps, part.pose(place), part.light, self._mat(moved))
            noise = np.random.default_rng([self._seed, 1, i])
            yield Frame(
                colour=colour_image(view, noise),
                xyz=point_cloud(view, noise),
                intrinsics=INTRINSICS,
                sequence=i,
                source=self._uri,
                name=f"belt-{i:06d}-{part.class_name}-{part.defect or 'good'}",
                class_name=part.class_name,
                colour_timestamp_s=i / self._belt.fps,
                depth_timestamp_s=i / self._belt.fps,
                clock="simulated",
            )

    def _mat(self, moved_mm: float) -> F32:
        """(H, W) brightness of the belt's cloth, moved along with it."""
        import cv2

        from edge_ad.data.synthetic.render import INTRINSICS, SIZE

        if not hasattr(self, "_cloth"):
            rng = np.random.default_rng([self._seed, 2])
            fine = cv2.GaussianBlur(rng.standard_normal((SIZE, 4 * SIZE), dtype=np.float32), (0, 0), 0.9)
            self._cloth: F32 = np.asarray(1 + 0.1 * fine, np.float32)
        shift = round(moved_mm * INTRINSICS.fx / DISTANCE_MM)
        return np.ascontiguousarray(np.roll(self._cloth, shift, axis=1)[:, :SIZE])


class _Part:
    """One part on the belt: its maps, how it lies, and the lamp above."""

    def __init__(self, classes: tuple[str, ...], seed: int, number: int, defects: float) -> None:
        from edge_ad.data.synthetic.parts import kinds_for
        from edge_ad.data.synthetic.render import random_light
        from edge_ad.data.synthetic.shapes import BUILDERS

        self.number = number
        self.class_name = classes[number % len(classes)]
        rng = np.random.default_rng([seed, 3, max(number, 0)])
        kinds = kinds_for(self.class_name)
        # All draws happen for every part, so that the share of defects does not change the parts themselves.
        kind, chance, turn = kinds[int(rng.integers(len(kinds)))], float(rng.random()), float(rng.uniform(0, 2 * np.pi))
        self._aside = float(rng.uniform(-4, 4))
        self._turn = turn
        self.light = random_light(np.random.default_rng([seed, 4]))
        self.maps = BUILDERS[self.class_name](*(np.random.default_rng([seed, k, max(number, 0)]) for k in (5, 6)))
        self.defect = kind if chance < defects else None
        if self.defect is not None:
            self._spoil(np.random.default_rng([seed, 7, max(number, 0)]))

    def pose(self, place_mm: float) -> Pose:
        """The pose of the part, so far right of the middle along the belt."""
        from edge_ad.data.synthetic.render import Pose

        c, s = np.cos(self._turn), np.sin(self._turn)
        spin = np.asarray([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        a = np.deg2rad(TILT_DEG)
        tilt = np.asarray([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        place = tilt @ np.asarray([place_mm, self._aside, 0.0]) + np.asarray([0, 0, DISTANCE_MM])
        return Pose(tilt @ np.diag([1.0, -1.0, -1.0]) @ spin, place)

    def _spoil(self, rng: np.random.Generator) -> None:
        """Draw the defect until what is seen of it has the size that synthetic defects have."""
        from edge_ad.data.synthetic.defects import DEPTH_STEP_MM, KINDS, spoil
        from edge_ad.data.synthetic.parts import COLOUR_STEP, SHARES
        from edge_ad.data.synthetic.render import SIZE, render

        assert self.defect is not None
        spec, mat = KINDS[self.defect], np.ones((SIZE, SIZE), np.float32)
        twin = render(self.maps, self.pose(0), self.light, mat)
        asked = float(np.exp(rng.uniform(np.log(spec.smallest), np.log(spec.largest))))
        for _ in range(_ATTEMPTS):
            maps = spoil(self.maps, self.defect, rng, asked)
            view = render(maps, self.pose(0), self.light, mat)
            changed = (np.abs(view.distance - twin.distance) > DEPTH_STEP_MM) | (
                np.abs(view.colour - twin.colour).max(axis=2) > COLOUR_STEP
            )
            share = float(changed.sum()) / float((twin.height > 0.5).sum())
            if SHARES[0] <= share <= SHARES[1]:
                self.maps = maps
                return
            asked = float(np.clip(asked * (1.4 if share < SHARES[0] else 0.6), spec.smallest, spec.largest))
        raise EdgeAdError(f"no {self.defect} of a usual size in {_ATTEMPTS} attempts", "", "try another seed")
