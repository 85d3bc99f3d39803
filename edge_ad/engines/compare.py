"""One sample through the four graphs of two engines: what each graph gives, and how far apart the answers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.frame import F32, Bool, Sample
from edge_ad.runtime.backends import Session, load_session
from edge_ad.runtime.maps import image_score, smooth
from edge_ad.runtime.point_input import PointInput, prepare_points
from edge_ad.runtime.scoring import fuse, levels_of, score_pixels, token_tables

GRAPHS = ("rgb", "points", "tokens", "score")
SCORED_ROWS = 2048
"""Pixels, evenly spaced, on which the score graph is held against the other by itself."""
Arrays = dict[str, F32]


@dataclass(frozen=True)
class Answers:
    """What every graph gave for one sample (graph -> output -> array), the smoothed map (S, S) and its score."""

    graphs: dict[str, Arrays]
    map: F32
    score: float


def load_sessions(bundle: Bundle, backend: str, precision: str, threads: int | None = None) -> dict[str, Session]:
    """A session for each of the four graphs."""
    return {graph: load_session(bundle, graph, backend, precision, threads) for graph in GRAPHS}


def points_of(bundle: Bundle, sample: Sample) -> PointInput:
    """Point operations of a sample; raises InvalidFrame when it has too few points."""
    return prepare_points(sample, bundle.preset.points, bundle.points_scale_m)


def run_sample(
    bundle: Bundle, sessions: Mapping[str, Session], sample: Sample, points: PointInput, class_index: int
) -> Answers:
    """Run one sample through the four graphs, every valid pixel scored."""
    graphs = {
        "rgb": _run(sessions["rgb"], {"image": sample.rgb[None]}),
        "points": _run(sessions["points"], {"groups": points.groups[None], "centers": points.centers[None]}),
    }
    graphs["tokens"] = _tokens(sessions["tokens"], graphs, points, class_index)
    graphs["score"] = _score(sessions["score"], graphs, sample, points, class_index)
    f = bundle.preset.fusion
    flat = np.zeros(sample.valid.shape, dtype=np.float32)
    flat[sample.valid] = fuse(graphs["score"], f, bundle.balance)
    smoothed = smooth(flat, f, sample.valid)
    return Answers(graphs, smoothed, image_score(smoothed, f))


def graph_errors(
    sessions: Mapping[str, Session],
    found: Answers,
    expected: Answers,
    sample: Sample,
    points: PointInput,
    class_index: int,
) -> dict[str, float]:
    """Relative error of each graph by itself: it reads what the other engine's forerunners gave, not its own.

    Parameters
    ----------
    sessions : of the engine that gave ``found``. expected : the other engine's answers.
    """
    rows = np.unique(np.linspace(0, int(sample.valid.sum()) - 1, SCORED_ROWS).round().astype(np.int64))
    tokens = _tokens(sessions["tokens"], expected.graphs, points, class_index)
    score = _score(sessions["score"], expected.graphs, sample, points, class_index, rows)
    alone = {**found.graphs, "tokens": tokens, "score": score}
    wanted = {**expected.graphs, "score": {n: v[rows] for n, v in expected.graphs["score"].items()}}
    return {graph: max(relative_error(alone[graph][n], v) for n, v in wanted[graph].items()) for graph in GRAPHS}


def _tokens(session: Session, graphs: Mapping[str, Arrays], points: PointInput, class_index: int) -> Arrays:
    pooled = points.pooled(graphs["points"]["point_tokens"])
    tables = token_tables(session, graphs["rgb"]["rgb_tokens"], pooled, class_index)
    return {name: np.asarray(value, np.float32) for name, value in tables.items()}


def _score(
    session: Session,
    graphs: Mapping[str, Arrays],
    sample: Sample,
    points: PointInput,
    class_index: int,
    rows: NDArray[np.int64] | None = None,
) -> Arrays:
    tables = graphs["tokens"]
    args = (session, tables["rgb_table"], tables["point_table"], sample.valid, points, class_index, rows)
    return score_pixels(*args, levels=levels_of(tables))


def _run(session: Session, inputs: dict[str, NDArray[Any]]) -> Arrays:
    return {name: np.asarray(value, np.float32) for name, value in session.run(inputs).items()}


def relative_error(found: F32, expected: F32) -> float:
    """RMS of the difference over the RMS of the expected values' deviation from their mean; inf when not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    x, y = found.astype(np.float64), expected.astype(np.float64)
    spread = float(np.sqrt(np.mean((y - y.mean()) ** 2)))
    return float(np.sqrt(np.mean((x - y) ** 2))) / max(spread, 1e-12 + 1e-6 * float(np.abs(y).max(initial=0.0)))


def correlation(found: F32, expected: F32) -> float:
    """Pearson's correlation of two maps; 1 for two equal constants, 0 where only one varies or is not finite."""
    if not np.isfinite(found).all():
        return 0.0
    x, y = (m.astype(np.float64).ravel() - m.mean(dtype=np.float64) for m in (found, expected))
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    if norms < 1e-24:
        return 1.0 if np.allclose(found, expected) else 0.0
    return float(x @ y) / norms


def worst_pixel(found: F32, expected: F32) -> tuple[float, tuple[int, int]]:
    """Largest difference of two (H, W) maps over the expected map's maximum, and its row and column."""
    difference = np.abs(np.nan_to_num(found, nan=np.inf, posinf=np.inf) - expected)
    row, column = np.unravel_index(int(np.argmax(difference)), difference.shape)
    worst = float(difference[row, column]) / max(float(np.abs(expected).max()), 1e-12)
    return worst, (int(row), int(column))


def overlap(found: Bool, expected: Bool) -> tuple[int, int]:
    """Pixels of the intersection and of the union of two masks."""
    return int((found & expected).sum()), int((found | expected).sum())
