"""Histograms and the four ways to a range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ad.calibration.int8.histogram import BINS, Histogram
from edge_ad.calibration.int8.methods import LEVELS, METHODS, choose_range
from edge_ad.errors import EdgeAdError

ARRAYS = hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32))


def filled(*batches: np.ndarray) -> Histogram:
    made = Histogram()
    for batch in batches:
        made.add(batch)
    return made


@given(st.lists(ARRAYS, min_size=1, max_size=6))
def test_no_value_is_lost_whatever_the_order(batches: list[np.ndarray]) -> None:
    forward, backward = filled(*batches), filled(*reversed(batches))
    largest = max(float(np.abs(b).max()) for b in batches)
    for made in (forward, backward):
        assert made.total == sum(b.size for b in batches)
        assert made.peak == pytest.approx(largest)
        assert made.top >= made.peak
        # Every value lies in its bin, up to the rounding at a bin's border.
        above = made.counts[np.arange(BINS) * (made.top / BINS) > largest * (1 + 1e-5) + 1e-30].sum() if largest else 0
        assert above == 0


@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_every_range_lies_between_zero_and_the_peak(batches: list[np.ndarray]) -> None:
    made = filled(*batches)
    for method in METHODS:
        found = choose_range(made, method)
        assert 0 <= found <= made.peak
        assert (found == 0) == (made.peak == 0)
    assert choose_range(made, "minmax") == made.peak


def test_percentile_leaves_out_its_share() -> None:
    values = np.linspace(0, 100, 100_001, dtype=np.float32)
    assert choose_range(filled(values), "percentile", 99.0) == pytest.approx(99, abs=0.1)
    assert choose_range(filled(values), "percentile", 100.0) == 100


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_far_outlier_does_not_widen_the_range(method: str) -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    made = filled(values, np.array([200.0], np.float32))
    assert made.peak == 200
    assert choose_range(made, method) < 40


def test_mse_finds_the_least_error_of_all_methods() -> None:
    values = np.random.default_rng(1).standard_t(3, 100_000).astype(np.float32)
    made = filled(values)

    def error(limit: float) -> float:
        step = limit / LEVELS
        return float(np.mean((np.clip(np.rint(values / step), -LEVELS, LEVELS) * step - values) ** 2))

    errors = {m: error(choose_range(made, m)) for m in METHODS}
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert errors["mse"] < 0.8 * errors["minmax"]


def test_entropy_keeps_the_peak_of_an_even_distribution() -> None:
    values = np.random.default_rng(2).uniform(-3, 3, 100_000).astype(np.float32)
    assert choose_range(filled(values), "entropy") > 2.9


@pytest.mark.parametrize(
    ("method", "percentile", "text"),
    [
        ("median", 99.0, "calibration method 'median'"),
        ("percentile", 0.0, "percentile 0"),
        ("percentile", 101.0, "101"),
    ],
)
def test_wrong_wishes_are_refused(method: str, percentile: float, text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        choose_range(filled(np.ones(3, np.float32)), method, percentile)


def test_nothing_counted_and_infinite_values_are_refused() -> None:
    with pytest.raises(EdgeAdError, match="no activation was counted"):
        choose_range(Histogram(), "mse")
    with pytest.raises(EdgeAdError, match="not finite"):
        filled(np.array([1.0, np.inf], np.float32))
