"""Candidate precisions over the same parts, on the runtime's own path, without doing anything twice. Needs onnx.

Frames are read and cut once, and both encoders' float32 tokens kept: a candidate computes what its own graphs
influence and nothing else. Parts run on threads, one of arithmetic each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.outcome import Outcome, Reference, outcome, reference
from edge_ad.data.dataset import Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.runner import ScoredPart, scored_part
from edge_ad.export.precision.assemble import base_graphs
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.replay import Replay
from edge_ad.frame import F32, Bool, Frame
from edge_ad.parallel import cores
from edge_ad.runtime.backends import Session
from edge_ad.runtime.detector import Detector
from edge_ad.runtime.preprocess import Preprocessed
from edge_ad.runtime.stages import PreparedPart, Scored, Stopwatch

STRIDE = 2
"""Every second pixel is scored. The map is smooth: over 600 parts of `compact` I-AUROC is 86.23 so, 86.20 with every
pixel, AUPRO@30 % 80.60 both ways; float32 and the candidates are measured alike."""
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Candidate:
    """Graphs in INT8: graph -> layer -> range. keep : graph -> nodes that stay FP32 where the rest runs in FP16;
    None: the rest stays FP32, which measures the quantisation of these layers alone."""

    ranges: Mapping[str, Mapping[str, float]]
    keep: Mapping[str, frozenset[str]] | None = None


@dataclass(frozen=True)
class KnownPart:
    """A part before the networks, and the float32 tokens of both encoders, the points' pooled as the graph reads
    them."""

    part: PreparedPart
    rgb: F32
    points: F32


@dataclass(frozen=True)
class _Ready:
    """A frame with all that its score needs but the networks' answers; its pictures are gone."""

    item: Item
    class_name: str
    frame: Frame
    cut: Preprocessed
    parts: tuple[KnownPart, ...]
    truth: Bool | None


class Probe:
    """``outcome(candidate)`` over the same parts each time.

    Parameters
    ----------
    items : parts; what cannot be scored is left out. jobs : threads, 0: one a core. stride : every so many-th pixel is
    scored; 0: :data:`STRIDE`, or the bundle's own where that is larger.

    Raises
    ------
    EdgeAdError
        No part could be scored.
    """

    def __init__(
        self, bundle: Bundle, items: Sequence[Item], *, jobs: int = 0, stride: int = 0, track: Track | None = None
    ) -> None:
        self.bundle, self._jobs = bundle, jobs or cores()
        self.replay = Replay(bundle)
        self.stride = stride or max(STRIDE, bundle.stride)
        self.models = base_graphs(bundle)
        found = self._map(self._prepare, items)
        self._ready = [r for r in (track(found, len(items), "prepare") if track else found) if r is not None]
        if not self._ready:
            raise EdgeAdError(f"none of the {len(items)} parts could be scored", "parts that fill a window")
        self._base = self._answers({}, range(len(self._ready)))
        self._limits = {c: t.value for c in bundle.class_names if (t := bundle.threshold(c, "fp32")) is not None}
        self._against: dict[tuple[int, ...], tuple[Outcome, Reference]] = {}

    @property
    def items(self) -> list[Item]:
        """The parts that are measured."""
        return [r.item for r in self._ready]

    @property
    def known(self) -> list[tuple[KnownPart, str]]:
        """Every part with its class."""
        return [(part, r.class_name) for r in self._ready for part in r.parts]

    def base(self, some: Sequence[int] | None = None) -> Outcome:
        """Float32 itself, over all parts or ``some`` of them (numbers into :attr:`items`)."""
        return self._float32(self._which(some))[0]

    def outcome(self, candidate: Candidate, some: Sequence[int] | None = None) -> Outcome:
        """Metrics of a candidate over all parts or ``some`` of them."""
        return self.outcome_of(self.sessions(candidate), some)

    def outcome_of(self, sessions: Mapping[str, Session], some: Sequence[int] | None = None) -> Outcome:
        """Metrics of other sessions in the place of the bundle's own."""
        which = self._which(some)
        return outcome(self._answers(sessions, which), self._float32(which)[1])

    def sessions(self, candidate: Candidate) -> dict[str, Session]:
        """Sessions of the graphs that a candidate changes."""
        made: dict[str, Session] = {}
        for name, ranges in candidate.ranges.items():
            keep = None if candidate.keep is None else candidate.keep.get(name, frozenset())
            if ranges or keep is not None:
                made[name] = self.replay.session(name, to_int8(Graph(self.models[name], name), ranges, keep))
        return made

    def _which(self, some: Sequence[int] | None) -> tuple[int, ...]:
        return tuple(range(len(self._ready))) if some is None else tuple(some)

    def _float32(self, which: tuple[int, ...]) -> tuple[Outcome, Reference]:
        if which not in self._against:
            parts = [self._base[i] for i in which]
            against = reference(parts, self._limits)
            self._against[which] = outcome(parts, against), against
        return self._against[which]

    def _map(self, function: Callable[[T], R], values: Iterable[T]) -> Iterable[R]:
        with ThreadPoolExecutor(self._jobs) as pool:
            yield from pool.map(function, values)

    def _prepare(self, item: Item) -> _Ready | None:
        detector = self.replay.detector
        try:
            frame = item.frame()
            known = item.class_name in detector.classes
            name = item.class_name if known else detector.choose_class(frame)
            cut = detector.preprocess(frame, name)
            parts = tuple(_know(detector, detector.prepare_part(s, Stopwatch())) for s in cut.samples)
            frame = replace(frame, colour=np.broadcast_to(np.uint8(0), frame.colour.shape), depth=None, xyz=None)
            cut = replace(cut, xyz=np.broadcast_to(np.float32(0), cut.xyz.shape))
            return _Ready(item, name, frame, cut, parts, item.ground_truth())
        except InvalidFrame:
            return None

    def _answers(self, sessions: Mapping[str, Session], which: Sequence[int]) -> list[ScoredPart]:
        changed = frozenset(sessions)
        with self.replay.using(sessions) as detector:

            def score(i: int) -> ScoredPart:
                r = self._ready[i]
                scored = [_score(detector, part, changed, r.class_name, self.stride) for part in r.parts]
                found = scored_part(r.item, detector.preset, r.cut, scored, r.truth, r.frame)
                return replace(found, factors={})

            return list(self._map(score, which))


def _know(detector: Detector, part: PreparedPart) -> KnownPart:
    sample = replace(part.sample, xyz=np.broadcast_to(np.float32(0), part.sample.xyz.shape))
    light = PreparedPart(sample, part.points)
    return KnownPart(light, rgb_tokens(detector, light), point_tokens(detector, light))


def rgb_tokens(detector: Detector, part: PreparedPart) -> F32:
    """What the colour encoder makes of a part."""
    return np.asarray(detector.sessions["rgb"].run({"image": part.sample.rgb[None]})["rgb_tokens"], np.float32)


def point_tokens(detector: Detector, part: PreparedPart) -> F32:
    """What the point encoder makes of a part, pooled."""
    given = {"groups": part.points.groups[None], "centers": part.points.centers[None]}
    return part.points.pooled(detector.sessions["points"].run(given)["point_tokens"])


def _score(detector: Detector, known: KnownPart, changed: frozenset[str], class_name: str, stride: int) -> Scored:
    rgb = rgb_tokens(detector, known.part) if "rgb" in changed else known.rgb
    points = point_tokens(detector, known.part) if "points" in changed else known.points
    encoded = detector.tables(known.part, rgb, points, class_name)
    return detector.score_part(encoded, class_name, Stopwatch(), stride)
