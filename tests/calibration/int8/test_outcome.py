"""The metrics of an outcome are the evaluation's own, and their standard errors are those of the parts' draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.int8.outcome import outcome, reference
from edge_ad.data.dataset import Item
from edge_ad.evaluation.report import evaluate_scores
from edge_ad.evaluation.runner import ScoredPart, to_record

SIZE = 24


def nothing() -> None:
    return None


def part(rng: np.random.Generator, class_name: str, bad: bool) -> ScoredPart:
    """A part with a map of noise, higher within two drawn defects."""
    gt = np.zeros((SIZE, SIZE), bool)
    if bad:
        gt[2:7, 3:8] = True
        gt[12:20, 10:14] = rng.random() < 0.5
    values = (rng.random((SIZE, SIZE)) + gt * rng.random()).astype(np.float32)
    item = Item("p", class_name, "test", "hole" if bad else "good", Path("p"), nothing, nothing)  # type: ignore[arg-type]
    whole = np.ones_like(gt)
    return ScoredPart(item, class_name, float(values.max()), values, {}, gt if bad else None, whole, 0.0, 0.0)


def noisy(parts: list[ScoredPart], rng: np.random.Generator, size: float) -> list[ScoredPart]:
    out = []
    for p in parts:
        values = (p.map + size * rng.standard_normal(p.map.shape)).astype(np.float32)
        out.append(replace(p, map=values, score=float(values.max())))
    return out


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_the_metrics_are_the_evaluations(seed: int, good: int, bad: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [part(rng, name, b) for name in ("a", "b") for b in [False] * good + [True] * bad]
    found = outcome(parts, reference(parts, {}))
    wanted = evaluate_scores([to_record(p) for p in parts]).mean
    assert found.i_auroc == pytest.approx(wanted["i_auroc"]) and found.aupro_30 == pytest.approx(wanted["aupro_30"])
    assert found.i_auroc_se == found.aupro_30_se == found.map_error == 0 and found.correlation == pytest.approx(1)
    assert found.drop_and_error(found) == (0, 0)


def test_without_labels_there_is_nothing_to_drop_but_the_map() -> None:
    rng = np.random.default_rng(0)
    good = [part(rng, "a", False) for _ in range(3)]
    found = outcome(good, reference(good, {}))
    assert found.i_auroc is None and found.aupro_30 is None and not found.labelled
    bad = [part(rng, "a", True) for _ in range(3)]
    assert outcome(bad, reference(bad, {})).i_auroc is None


def test_the_standard_errors_are_those_of_the_parts_that_were_drawn() -> None:
    rng = np.random.default_rng(3)
    parts = [part(rng, "a", b) for b in [False] * 60 + [True] * 60]
    others = noisy(parts, rng, 0.15)
    told = outcome(others, reference(parts, {}))
    drawn = []
    for _ in range(60):
        rows = [*rng.integers(0, 60, 60), *rng.integers(60, 120, 60)]
        pair = [[side[i] for i in rows] for side in (parts, others)]
        base, found = (outcome(side, reference(pair[0], {})) for side in pair)
        assert None not in (base.i_auroc, found.i_auroc, base.aupro_30, found.aupro_30)
        drawn.append((base.i_auroc - found.i_auroc, base.aupro_30 - found.aupro_30))  # type: ignore[operator]
    spread = np.std(drawn, axis=0)
    assert told.i_auroc_se == pytest.approx(spread[0], rel=0.5) and told.aupro_30_se == pytest.approx(
        spread[1], rel=0.5
    )
