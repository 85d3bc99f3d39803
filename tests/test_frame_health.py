"""A doubt about the camera can neither pass a part nor hide a defect (DESIGN, "What a result says")."""

from __future__ import annotations

import pytest

from edge_ad.frame import Result, degraded


@pytest.mark.parametrize(
    ("before", "after"), [("normal", "invalid"), ("anomalous", "anomalous"), ("invalid", "invalid")]
)
def test_degraded_results_are_never_normal(before: str, after: str) -> None:
    result = Result(before, "ok", ("said before",), "nut", 0.1, 0.5)
    doubted = degraded(result, ("frozen",))
    assert (doubted.decision, doubted.health, doubted.reasons) == (after, "degraded", ("said before", "frozen"))
    assert degraded(result, ()) is result
