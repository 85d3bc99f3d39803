"""The golden frames through an engine and through the reference: how far apart they are, and what that says.

Two questions, with tolerances a precision (:mod:`edge_ad.engines.tolerances`):

1. **The map**: the golden frames (half of them with a planted defect) end to end against the reference's maps.
2. **Each graph by itself**: every graph gets the inputs that float32 ONNX Runtime gives it on this machine, so that
   its own error is seen before later stages average it away.

The second is the sharper one. Measured on the compact preset, a rounding twin of FP16 differs by 4.4e-3 in the colour
encoder and 6.7e-4 in the point encoder; 5 % noise on one convolution of the former by 1.2e-2 or more, on the linear
layers of one block of the latter by 1.7e-3 or more; yet the former's maps correlate to 0.99999. How much a precision
costs differs from graph to graph: where the bundle says it (:mod:`edge_ad.engines.cost`), 1.5 times that is allowed,
else the table's value. In INT8 5 % noise on one transformer block of the point encoder can lie within that: this gate
does not claim to catch it; a zeroed block of an encoder does not pass (docs/engines.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle, GoldenFrame
from edge_ad.engines.compare import (
    GRAPHS,
    Answers,
    correlation,
    graph_errors,
    load_sessions,
    overlap,
    points_of,
    relative_error,
    run_sample,
    worst_pixel,
)
from edge_ad.engines.cost import golden_preprocessor, read_cost
from edge_ad.engines.tolerances import TOLERANCES, Tolerance
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, Frame
from edge_ad.runtime.backends import Session

REFERENCE = ("onnxruntime", "fp32")
Whole = Callable[[Frame, str], tuple[F32, float]]
COST_FACTOR: Mapping[str, float] = {"fp16": 2.0, "int8": 1.5}
"""A GPU rounds no more often than the rounding twin, which casts after every operation, but may sum in FP16, which the
twin does not. 5 % noise on the linear layers of any one block of the compact encoders costs at least 2.5 times what
FP16 does."""


@dataclass(frozen=True)
class FrameCheck:
    """One golden frame: how far the engine's map and score are from the reference's, and whether its decision flips."""

    name: str
    class_name: str
    defect: bool
    map_difference: float
    correlation: float
    score: float
    reference_score: float
    limit: float
    flipped: bool


@dataclass(frozen=True)
class GateReport:
    """What the golden frames say about an engine; ``faults`` is empty when it passed. ``reference_fault``: the float32
    graphs of the bundle do not give its golden maps themselves; it stands among the faults, too."""

    backend: str
    precision: str
    frames: tuple[FrameCheck, ...]
    graph_errors: dict[str, float]
    allowed_errors: dict[str, float]
    anchor_error: float
    mask_iou: float
    faults: tuple[str, ...]
    reference_fault: str = ""

    @property
    def passed(self) -> bool:
        """Whether the engine may be served."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **dataclasses.asdict(self),
            "passed": self.passed,
            "frames": [dataclasses.asdict(f) for f in self.frames],
        }


def examine(
    bundle: Bundle,
    sessions: Mapping[str, Session],
    backend: str,
    precision: str,
    reference: Mapping[str, Session] | None = None,
    whole: Whole | None = None,
) -> GateReport:
    """Run the golden frames through an engine's sessions and through the reference's.

    Parameters
    ----------
    sessions : graph -> session of the engine. reference : of float32 ONNX Runtime; None: loaded here.
    whole : (frame, class name) -> map and score, where the maps are made on another way than graph after graph (the
        device pipeline); then these are held against the golden maps.

    Raises
    ------
    EdgeAdError
        The bundle has no golden frame that can be inspected, or a precision without tolerances.
    """
    if precision not in TOLERANCES:
        raise EdgeAdError(f"precision '{precision}' has no tolerances", f"one of {', '.join(TOLERANCES)}")
    allowed = TOLERANCES[precision]
    golden = bundle.golden()
    if not golden:
        raise EdgeAdError(f"{bundle.where} has no golden frames", "at least one", "run edge-ad export again")
    reference = reference or load_sessions(bundle, *REFERENCE)
    preprocess = golden_preprocessor(bundle)
    limits = _limits(bundle, golden, precision)
    frames: list[FrameCheck] = []
    errors = dict.fromkeys(GRAPHS, 0.0)
    reference_error = anchor_error = 0.0
    both = either = 0
    for frame in golden:
        index = bundle.class_names.index(frame.class_name)
        try:
            sample = preprocess(frame.frame, frame.class_name).samples[0]
            points = points_of(bundle, sample)
        except InvalidFrame as e:
            raise EdgeAdError(f"{bundle.where}: golden frame {frame.name} cannot be inspected ({e})") from None
        expected = run_sample(bundle, reference, sample, points, index)
        found = run_sample(bundle, sessions, sample, points, index)
        reference_error = max(reference_error, worst_pixel(expected.map, frame.map)[0])
        for graph, error in graph_errors(sessions, found, expected, sample, points, index).items():
            errors[graph] = max(errors[graph], error)
        score_limit, mask_limit, own_limit = limits[frame.class_name]
        if whole is not None:
            made = whole(frame.frame, frame.class_name)
            found = dataclasses.replace(found, map=made[0], score=made[1])
        here, together = overlap(found.map > mask_limit, frame.map > mask_limit)
        both, either = both + here, either + together
        frames.append(_check_frame(frame, found, score_limit, own_limit, allowed))
        if frame is golden[0]:
            anchor_error = _anchors(bundle, sessions, reference, expected, sample, points)
    iou = both / either if either else 1.0
    each = {graph: allowed_error(bundle, graph, precision) for graph in GRAPHS}
    report = GateReport(backend, precision, tuple(frames), errors, each, anchor_error, iou, ())
    faults = _faults(report, allowed)
    own = ""
    if reference_error > TOLERANCES["fp32"].graph_error:
        own = f"the bundle's own float32 graphs differ from its golden maps by {reference_error:.1e}"
        faults = (own, *faults)
    return dataclasses.replace(report, faults=faults, reference_fault=own)


def allowed_error(bundle: Bundle, graph: str, precision: str) -> float:
    """:data:`COST_FACTOR` times what this graph cost when it was cast, if the bundle says so; else the table."""
    table = TOLERANCES[precision].graph_error
    measured = read_cost(bundle, precision).get(graph)
    if measured is None or precision not in COST_FACTOR:
        return table
    return min(max(COST_FACTOR[precision] * measured, TOLERANCES["fp32"].graph_error), table)


def _check_frame(golden: GoldenFrame, found: Answers, limit: float, own_limit: float, allowed: Tolerance) -> FrameCheck:
    close = abs(golden.score - limit) <= allowed.score * abs(limit)
    flipped = not close and (golden.score > limit) != (found.score > own_limit)
    return FrameCheck(
        golden.name,
        golden.class_name,
        golden.defect,
        worst_pixel(found.map, golden.map)[0],
        correlation(found.map, golden.map),
        found.score,
        golden.score,
        limit,
        flipped or not np.isfinite(found.score),
    )


def _faults(report: GateReport, allowed: Tolerance) -> tuple[str, ...]:
    out = []
    for graph, error in report.graph_errors.items():
        if not error <= report.allowed_errors[graph]:
            out.append(f"graph {graph} differs by {error:.1e} (allowed {report.allowed_errors[graph]:.1e})")
    if not report.anchor_error <= report.allowed_errors["score"]:
        out.append(f"the text distances of some class differ by {report.anchor_error:.1e}: its anchor is not baked in")
    worst = max(report.frames, key=lambda f: f.map_difference)
    if allowed.map_difference is not None and not worst.map_difference <= allowed.map_difference:
        out.append(f"map of {worst.name} differs by {worst.map_difference:.1e} (allowed {allowed.map_difference:.0e})")
    least = min(report.frames, key=lambda f: f.correlation)
    if not least.correlation >= allowed.correlation:
        out.append(f"map of {least.name} correlates {least.correlation:.6f} (at least {allowed.correlation})")
    if not report.mask_iou >= allowed.mask_iou:
        out.append(f"masks overlap {report.mask_iou:.3f} (at least {allowed.mask_iou})")
    flipped = [f.name for f in report.frames if f.flipped]
    if flipped:
        out.append(f"the decision flips on {', '.join(flipped)}")
    return tuple(out)


def _anchors(
    bundle: Bundle,
    sessions: Mapping[str, Session],
    reference: Mapping[str, Session],
    expected: Answers,
    sample: Any,
    points: Any,
) -> float:
    """Worst error of the text distances over all classes: the anchors that are baked into the graph, in their order."""
    if "text_rgb" not in expected.graphs["score"]:
        return 0.0
    from edge_ad.runtime.scoring import score_pixels

    tables = expected.graphs["tokens"]
    rows = np.unique(np.linspace(0, int(sample.valid.sum()) - 1, 256).round().astype(np.int64))
    worst = 0.0
    for index in range(len(bundle.classes)):
        args = (tables["rgb_table"], tables["point_table"], sample.valid, points, index, rows)
        found, wanted = (score_pixels(s["score"], *args) for s in (sessions, reference))
        for name in ("text_rgb", "text_3d"):
            worst = max(worst, relative_error(found[name], wanted[name]))
    return worst


def _limits(bundle: Bundle, golden: list[GoldenFrame], precision: str) -> dict[str, tuple[float, float, float]]:
    """Class -> (limit of the reference's score, of the map's mask, of the engine's score).

    What calibration set; where it set nothing, the middle between the class's good and its planted golden frames.
    """
    out = {}
    for name in {g.class_name for g in golden}:
        good = [g.score for g in golden if g.class_name == name and not g.defect]
        bad = [g.score for g in golden if g.class_name == name and g.defect]
        middle = (max(good) + min(bad)) / 2 if good and bad else float(max(good + bad)) / 2
        entry = bundle.threshold(name, "fp32")
        own = bundle.threshold(name, precision) or entry
        score = entry.value if entry else middle
        out[name] = (score, entry.mask_value if entry else middle, own.value if own else score)
    return out
