"""Synthetic parts as a camera: endless reproducible frames without hardware or data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors import AlwaysOpen, paced
from edge_ad.sensors.uri import Uri


def open_uri(uri: Uri) -> SyntheticCamera:
    """``synthetic:[CLASS][?seed=0&frames=20&defects=0.3&fps=]``; without a class all classes in turn.

    ``frames=0`` never ends; ``defects`` is the share of parts with a defect. Raises EdgeAdError.
    """
    uri.only("seed", "frames", "defects", "fps")
    return SyntheticCamera(
        classes_of(uri),
        seed=uri.integer("seed", 0),
        frames=uri.integer("frames", 20),
        defects=uri.number("defects", 0.3, 0, 1),
        fps=uri.number("fps", 0, 0, 1000),
        uri=str(uri),
    )


def classes_of(uri: Uri) -> tuple[str, ...]:
    """The class that ``uri.path`` names, or all. Raises EdgeAdError for an unknown one."""
    from edge_ad.data.synthetic import CLASSES

    if uri.path and uri.path not in CLASSES:
        raise EdgeAdError(f"{uri}: no synthetic class '{uri.path}'", f"one of: {', '.join(CLASSES)}")
    return (uri.path,) if uri.path else tuple(CLASSES)


class SyntheticCamera(AlwaysOpen):
    """Frames of procedural parts. Frame i depends on (seed, i) alone; its name ends with the defect or ``good``."""

    def __init__(
        self,
        classes: tuple[str, ...],
        *,
        seed: int,
        frames: int,
        defects: float,
        fps: float = 0,
        uri: str = "synthetic:",
    ) -> None:
        self._classes = classes
        self._seed = seed
        self._frames = frames
        self._defects = defects
        self._fps = fps
        self._uri = uri

    def __iter__(self) -> Iterator[Frame]:
        """Frames with xyz in metres."""
        return paced(self._parts(), self._fps)

    def describe(self) -> str:
        """One line for people."""
        count = f"{self._frames} frames" if self._frames else "endless"
        return f"{self._uri}: {', '.join(self._classes)}, {count}, {self._defects:.0%} with a defect, seed {self._seed}"

    def _parts(self) -> Iterator[Frame]:
        sequence = 0
        while self._frames == 0 or sequence < self._frames:
            yield self._part(sequence)
            sequence += 1

    def _part(self, sequence: int) -> Frame:
        from edge_ad.data.synthetic import kinds_for, synthesize

        rng = np.random.default_rng([self._seed, sequence])
        class_name = self._classes[sequence % len(self._classes)]
        kinds = kinds_for(class_name)
        # All draws happen for every frame, so that the share of defects does not change the parts themselves.
        part_seed, kind, chance = int(rng.integers(2**31)), int(rng.integers(len(kinds))), float(rng.random())
        defect = kinds[kind] if chance < self._defects else None
        part = synthesize(class_name, part_seed, defect=defect)
        return Frame(
            colour=part.colour,
            xyz=part.xyz,
            intrinsics=part.intrinsics,
            sequence=sequence,
            source=self._uri,
            name=f"{class_name}-{sequence:05d}-{defect or 'good'}",
            class_name=class_name,
        )
