"""Two backends or precisions on the same frames: maps, masks, scores, decisions, and where they first differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edge_ad.bundle import Bundle, TensorSpec
from edge_ad.engines.compare import (
    GRAPHS,
    correlation,
    graph_errors,
    load_sessions,
    overlap,
    points_of,
    run_sample,
    worst_pixel,
)
from edge_ad.engines.cost import golden_preprocessor
from edge_ad.engines.examine import allowed_error
from edge_ad.engines.tolerances import TOLERANCES
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Frame
from edge_ad.runtime.backends import Session
from edge_ad.runtime.limits import read_limits


@dataclass(frozen=True)
class Side:
    """One of the two: a backend and a precision."""

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class PartDifference:
    """One part: ``found`` is the side under test, ``expected`` the one it is held against.

    map_correlation : Pearson's. worst_pixel : largest difference over the expected map's maximum, at ``worst_at``
    (row, column) of the sample grid. mask_iou : at the class's mask limit, else at half of the expected map's
    maximum; None where both masks are empty. decision, expected_decision : None without limits. graphs : relative
    error of each graph by itself.
    """

    name: str
    class_name: str
    map_correlation: float
    worst_pixel: float
    worst_at: tuple[int, int]
    mask_iou: float | None
    score: float
    expected_score: float
    decision: str | None
    expected_decision: str | None
    graphs: dict[str, float]


@dataclass(frozen=True)
class VerifyReport:
    """All parts, frames that could not be inspected with their reasons, and the first graph that differs.

    ``inputs``: graph -> what the expected side gave it for the last part (:mod:`edge_ad.export.bisect` reads it).
    ``allowed_errors``: graph -> the golden gate's limit for the less exact of the two precisions.
    """

    found: Side
    expected: Side
    parts: tuple[PartDifference, ...]
    skipped: tuple[tuple[str, str], ...]
    inputs: Mapping[str, Mapping[str, NDArray[Any]]]
    allowed_errors: Mapping[str, float]

    @property
    def graph_errors(self) -> dict[str, float]:
        """Worst relative error of each graph."""
        return {g: max(p.graphs[g] for p in self.parts) for g in GRAPHS}

    @property
    def allowed(self) -> float:
        """Relative error of any tensor that the less exact of the two precisions explains."""
        return max(TOLERANCES[s.precision].graph_error for s in (self.found, self.expected))

    @property
    def first_difference(self) -> str | None:
        """The first graph, in the order of the data, that differs by more than the precisions explain."""
        return next((g for g, error in self.graph_errors.items() if not error <= self.allowed_errors[g]), None)

    @property
    def changed(self) -> tuple[PartDifference, ...]:
        """Parts on which the decision changes."""
        return tuple(p for p in self.parts if p.decision != p.expected_decision)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "backend": dataclasses.asdict(self.found),
            "against": dataclasses.asdict(self.expected),
            "parts": [dataclasses.asdict(p) for p in self.parts],
            "skipped": [{"name": n, "reason": r} for n, r in self.skipped],
            "least_correlation": min(p.map_correlation for p in self.parts),
            "worst_pixel": max(p.worst_pixel for p in self.parts),
            "least_mask_iou": min((p.mask_iou for p in self.parts if p.mask_iou is not None), default=None),
            "largest_score_change": max(abs(p.score - p.expected_score) for p in self.parts),
            "decision_changes": [p.name for p in self.changed],
            "graph_errors": self.graph_errors,
            "allowed_graph_errors": dict(self.allowed_errors),
            "first_difference": self.first_difference,
        }


def verify(
    bundle: Bundle,
    found: Side,
    expected: Side,
    frames: Iterable[tuple[Frame, str]],
    threads: int | None = None,
) -> VerifyReport:
    """Run every frame through both sides, without the golden gate: this is what says why it refused.

    Parameters
    ----------
    frames : (frame, class name).

    Raises
    ------
    EdgeAdError
        The two sides are the same, one of them cannot be loaded, or no frame holds a part.
    """
    if found == expected:
        raise EdgeAdError(f"{found} against itself", "another backend or precision", "name one with --against")
    for side in (found, expected):
        if side.precision not in TOLERANCES:
            raise EdgeAdError(f"unknown precision '{side.precision}'", f"one of {', '.join(TOLERANCES)}")
    ours, theirs = (load_sessions(bundle, s.backend, s.precision, threads) for s in (found, expected))
    recorders = {graph: Recorder(session) for graph, session in theirs.items()}
    preprocess = golden_preprocessor(bundle)
    parts: list[PartDifference] = []
    skipped: list[tuple[str, str]] = []
    for frame, class_name in frames:
        if class_name not in bundle.class_names:
            raise EdgeAdError(f"unknown class '{class_name}'", f"one of {', '.join(bundle.class_names)}")
        index = bundle.class_names.index(class_name)
        try:
            samples = preprocess(frame, class_name).samples
            prepared = [(sample, points_of(bundle, sample)) for sample in samples]
        except InvalidFrame as e:
            skipped.append((frame.name, str(e)))
            continue
        for number, (sample, points) in enumerate(prepared):
            reference = run_sample(bundle, recorders, sample, points, index)
            answer = run_sample(bundle, ours, sample, points, index)
            limits = [read_limits(bundle, class_name, s.precision) for s in (found, expected)]
            mask = limits[1].mask if limits[1].mask == limits[1].mask else float(reference.map.max()) / 2
            both, either = overlap(answer.map > mask, reference.map > mask)
            worst, at = worst_pixel(answer.map, reference.map)
            decisions = [
                None if limit.score != limit.score else "anomalous" if score > limit.score else "normal"
                for limit, score in zip(limits, (answer.score, reference.score))
            ]
            parts.append(
                PartDifference(
                    name=frame.name if len(prepared) == 1 else f"{frame.name}#{number}",
                    class_name=class_name,
                    map_correlation=correlation(answer.map, reference.map),
                    worst_pixel=worst,
                    worst_at=at,
                    mask_iou=both / either if either else None,
                    score=answer.score,
                    expected_score=reference.score,
                    decision=decisions[0] if None not in decisions else None,
                    expected_decision=decisions[1] if None not in decisions else None,
                    graphs=graph_errors(ours, answer, reference, sample, points, index),
                )
            )
    if not parts:
        why = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise EdgeAdError(f"no frame could be inspected{why}", "at least one frame with a part in view")
    inputs = {graph: recorder.given for graph, recorder in recorders.items()}
    allowed = {g: max(allowed_error(bundle, g, s.precision) for s in (found, expected)) for g in GRAPHS}
    return VerifyReport(found, expected, tuple(parts), tuple(skipped), inputs, allowed)


class Recorder:
    """A session that remembers what it was given last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.given: dict[str, NDArray[Any]] = {}

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The session's."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The session's."""
        return self._session.outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the session."""
        self.given = dict(inputs)
        return self._session.run(inputs)
