"""One candidate precision through the runtime's own path; picklable, for several processes. Needs onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.outcome import Outcome, Reference, outcome, reference
from edge_ad.data.dataset import Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.evaluation.runner import ScoredPart, scored_part
from edge_ad.export.precision.assemble import base_graphs
from edge_ad.export.precision.graph import Graph, Model
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.replay import Replay
from edge_ad.frame import Bool, Frame
from edge_ad.runtime.preprocess import Preprocessed
from edge_ad.runtime.stages import PreparedPart, Stopwatch


@dataclass(frozen=True)
class Candidate:
    """Graphs in INT8: graph -> layer -> range. keep : graph -> nodes that stay FP32 where the rest runs in FP16;
    None: the rest stays FP32, which measures the quantisation of these layers alone."""

    ranges: Mapping[str, Mapping[str, float]]
    keep: Mapping[str, frozenset[str]] | None = None


@dataclass
class _Ready:
    """A frame before the networks."""

    item: Item
    class_name: str
    frame: Frame
    cut: Preprocessed
    parts: tuple[PreparedPart, ...]
    truth: Bool | None


@dataclass
class _State:
    """What a process keeps between candidates."""

    replay: Replay
    ready: list[_Ready]
    models: dict[str, Model]
    base: Outcome
    against: Reference


@dataclass
class Probe:
    """``probe(candidate) -> Outcome`` over the same parts each time; None is float32 itself.

    Geometry, point operations and the float32 answers are computed once a process and kept in memory.
    """

    path: Path
    items: Sequence[Item]
    variant: str
    stride: int
    _state: _State | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_state": None}

    def __call__(self, candidate: Candidate | None) -> Outcome:
        if self._state is None:
            self._state = self._start()
        state = self._state
        if candidate is None:
            return state.base
        sessions = {}
        for name, ranges in candidate.ranges.items():
            keep = None if candidate.keep is None else candidate.keep.get(name, frozenset())
            if ranges or keep is not None:
                model = to_int8(Graph(state.models[name], name), ranges, keep)
                sessions[name] = state.replay.session(name, model)
        return outcome(_score(state.replay, state.ready, sessions), state.against)

    def _start(self) -> _State:
        bundle = Bundle.open(self.path, verify=False).as_variant(self.variant, self.stride)
        replay = Replay(bundle)
        ready = [r for item in self.items if (r := _prepare(replay, item)) is not None]
        if not ready:
            raise EdgeAdError(f"none of the {len(self.items)} parts could be scored", "parts that fill a window")
        parts = _score(replay, ready, {})
        limits = {c: t.value for c in bundle.class_names if (t := bundle.threshold(c, "fp32")) is not None}
        against = reference(parts, limits)
        return _State(replay, ready, base_graphs(bundle), outcome(parts, against), against)


def _prepare(replay: Replay, item: Item) -> _Ready | None:
    try:
        frame = item.frame()
        known = item.class_name in replay.detector.classes
        name = item.class_name if known else replay.detector.choose_class(frame)
        cut = replay.detector.preprocess(frame, name)
        parts = tuple(replay.detector.prepare_part(s, Stopwatch()) for s in cut.samples)
        return _Ready(item, name, frame, cut, parts, item.ground_truth())
    except InvalidFrame:
        return None


def _score(replay: Replay, ready: Sequence[_Ready], sessions: Mapping[str, Any]) -> list[ScoredPart]:
    out = []
    with replay.using(sessions) as detector:
        for r in ready:
            watch = Stopwatch()
            scored = [detector.score_part(detector.encode_part(p, watch), r.class_name, watch) for p in r.parts]
            out.append(scored_part(r.item, detector.preset, r.cut, scored, r.truth, r.frame))
    return out
