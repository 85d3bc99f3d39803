"""What flows between the stages of the detector: prepare -> encode -> score -> finish, one object after each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge_ad.frame import F32, Frame, Sample
from edge_ad.runtime.point_input import PointInput
from edge_ad.runtime.preprocess import Preprocessed


class Stopwatch:
    """Adds up milliseconds a stage. One a frame; it travels with the frame from stage to stage."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}
        self.started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times_ms[name] = self.times_ms.get(name, 0.0) + (time.perf_counter() - start) * 1e3

    def total(self) -> dict[str, float]:
        """The stages and ``total``: milliseconds since the watch was made, waiting between the stages included."""
        return self.times_ms | {"total": (time.perf_counter() - self.started) * 1e3}


@dataclass(frozen=True)
class PreparedPart:
    """One part before the networks: its sample and the input of the point encoder."""

    sample: Sample
    points: PointInput


@dataclass(frozen=True)
class Prepared:
    """A frame after ``prepare``.

    class_name : a class, or ``auto``. cut : what the preprocessing made of the frame, or None where it could not.
    parts : those that can be scored. reasons : why others cannot.
    """

    frame: Frame
    class_name: str
    cut: Preprocessed | None
    parts: tuple[PreparedPart, ...]
    reasons: tuple[str, ...]
    watch: Stopwatch = field(default_factory=Stopwatch)


@dataclass(frozen=True)
class EncodedPart:
    """One part after the encoders: the tables of ``tokens.onnx``.

    rgb_table : (T, W_rgb) float32. point_table : (G, W_3d) float32. levels : expected Psi_3d a colour token (T,) and
    Psi_rgb a point token (G,), where the model has them. class_name : whose tables they are, where they depend on it.
    """

    part: PreparedPart
    rgb_table: F32
    point_table: F32
    levels: tuple[F32, F32] | None = None
    class_name: str | None = None


@dataclass(frozen=True)
class Encoded:
    """A frame after ``encode``."""

    prepared: Prepared
    parts: tuple[EncodedPart, ...]


@dataclass(frozen=True)
class Scored:
    """One sample after the networks.

    map : (S, S) float32, smoothed. distances : (n_valid,) float32 a factor. anchor_distance : mean distance of the
    sample's features to the class's anchor (NaN without text).
    """

    class_name: str
    map: F32
    score: float
    distances: dict[str, F32]
    anchor_distance: float


@dataclass(frozen=True)
class ScoredFrame:
    """A frame after ``score``: (sample, its score) a part."""

    prepared: Prepared
    parts: tuple[tuple[Sample, Scored], ...]
