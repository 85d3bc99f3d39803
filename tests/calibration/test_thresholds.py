"""The promise of the threshold, held against many draws; its arithmetic; its refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.calibration.thresholds import (
    Threshold,
    mask_threshold_for,
    parts_needed,
    threshold_for,
)
from edge_ad.errors import EdgeAdError


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(5, 120),
    rate=st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.5]),
    law=st.sampled_from(["normal", "heavy", "ties", "drift"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_new_good_parts_are_rejected_no_more_often_than_promised(n, rate, law, seed):
    if n < parts_needed(rate):
        return
    rng = np.random.default_rng(seed)
    draws = 1500
    shape = (draws, n + 1)
    scores = {
        "normal": lambda: rng.normal(size=shape),
        "heavy": lambda: rng.standard_cauchy(size=shape),
        "ties": lambda: rng.integers(0, 6, size=shape).astype(float),
        # Exchangeable, not independent: each draw has its own level.
        "drift": lambda: rng.normal(size=shape) + 5.0 * rng.normal(size=(draws, 1)),
    }[law]()
    rejected = sum(threshold_for(row[:n], rate).rejects(row[n]) for row in scores)
    # 5 standard deviations of a binomial count.
    assert rejected <= draws * rate + 5.0 * np.sqrt(draws * rate * (1 - rate))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.sampled_from([0.01, 0.05, 0.1, 0.29, 0.5, 0.99]))
def test_order_statistic(scores, rate):
    if len(scores) < parts_needed(rate):
        with pytest.raises(EdgeAdError):
            threshold_for(scores, rate)
        return
    t = threshold_for(scores, rate)
    assert t.value == sorted(scores, reverse=True)[t.rank - 1]
    assert t.promised_rate <= rate + 1e-12 < (t.rank + 1) / (len(scores) + 1) + 2e-12
    assert sum(t.rejects(s) for s in scores) < t.rank
    assert t.rate_upper_95 > t.promised_rate


@pytest.mark.parametrize(
    ("n", "rate", "rank"),
    [(19, 0.05, 1), (20, 0.05, 1), (39, 0.05, 2), (99, 0.29, 29), (99, 0.01, 1), (29, 0.1, 3), (9, 0.7, 7)],
)
def test_rank_is_exact_decimal_arithmetic(n, rate, rank):
    t = threshold_for(np.arange(n), rate)
    assert (t.rank, t.value) == (rank, float(n - rank))


def test_upper_rate_holds_with_95_percent_confidence():
    """With uniform scores the true rate of a threshold t is 1 - t."""
    rng = np.random.default_rng(7)
    thresholds = [threshold_for(row, 0.1) for row in rng.random((4000, 60))]
    covered = np.mean([1.0 - t.value <= t.rate_upper_95 for t in thresholds])
    assert covered == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, 0.07, 0.05, 0.01, 0.001])
def test_parts_needed_is_the_least(rate):
    n = parts_needed(rate)
    assert threshold_for(np.arange(n), rate).rank == 1
    with pytest.raises(EdgeAdError):
        threshold_for(np.arange(n - 1), rate)


@pytest.mark.parametrize(
    ("scores", "rate", "words"),
    [
        ([1.0] * 18, 0.05, "use 19 good parts or more"),
        ([1.0] * 18, 0.05, "1 / (n + 1) = 5.26 %"),
        ([], 0.05, "from 0 held-out good parts"),
        ([1.0, float("nan")], 0.5, "1 of 2 calibration scores are not finite"),
        ([1.0, float("inf")], 0.5, "not finite"),
        ([1.0], 0.0, "false-reject rate 0.0"),
        ([1.0], 1.0, "false-reject rate 1.0"),
        ([1.0], float("nan"), "false-reject rate nan"),
    ],
)
def test_refusals(scores, rate, words):
    with pytest.raises(EdgeAdError) as caught:
        threshold_for(scores, rate, class_name="bagel")
    assert words in str(caught.value)


def test_a_refusal_names_the_class():
    with pytest.raises(EdgeAdError, match="class 'peach'"):
        threshold_for(np.arange(3), 0.05, class_name="peach")


def test_nothing_unknown_passes_and_json_keeps_every_bit():
    t = threshold_for(np.float32([0.1, 0.2, 0.3]), 0.4)
    assert t.rejects(float("nan")) and not t.rejects(t.value) and t.rejects(np.nextafter(t.value, 1.0))
    assert Threshold(**json.loads(json.dumps(t.to_json()))) == t


def test_mask_threshold_is_the_image_threshold_of_the_maximum():
    rng = np.random.default_rng(3)
    valids = [rng.random((16, 16)) < 0.7 for _ in range(40)]
    maps = [(rng.random((16, 16)) * v).astype(np.float32) for v in valids]
    for anomaly, valid in zip(maps, valids, strict=True):
        anomaly[~valid] = 99.0  # what is not scored must not count
    peaks = [m[v].max() for m, v in zip(maps, valids, strict=True)]
    t = mask_threshold_for(maps, valids, 0.1)
    assert t == threshold_for(peaks, 0.1)
    assert sum(bool((m[v] > t.value).any()) for m, v in zip(maps, valids, strict=True)) == t.rank - 1


def test_mask_threshold_refuses():
    ones, none = np.ones((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    grid = np.zeros((4, 4), dtype=np.float32)
    for args, words in [
        (([grid], []), "1 maps and 0 valid masks"),
        (([grid], [ones[:2]]), "one grid"),
        (([grid], [none]), "no valid pixel"),
    ]:
        with pytest.raises(EdgeAdError, match=words):
            mask_threshold_for(*args, 0.5)
