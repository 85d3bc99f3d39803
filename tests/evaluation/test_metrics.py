"""AUROC and AUPRO against the published numbers, a literal slow reference, and their laws."""

from __future__ import annotations

import time
from bisect import bisect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.metrics import (
    aupro,
    auroc,
    false_reject_rate,
    pixel_auroc,
    pool_pixels,
    recall,
    threshold_at_false_rejects,
)
from tests.shared import SHARED, needs_shared


def slow_auroc(labels, scores):
    good = [s for y, s in zip(labels, scores, strict=True) if not y]
    bad = [s for y, s in zip(labels, scores, strict=True) if y]
    wins = sum(1.0 if b > g else 0.5 if b == g else 0.0 for b in bad for g in good)
    return wins / (len(good) * len(bad))


def slow_components(masks, maps):
    """Scores of each 8-connected component, and of all normal pixels, sorted."""
    components, normal = [], []
    for mask, scores in zip(masks, maps, strict=True):
        labels, n = ndimage.label(mask, structure=np.ones((3, 3)))
        components += [scores[labels == i + 1] for i in range(n)]
        normal.append(scores[labels == 0])
    return components, np.sort(np.concatenate(normal))


def slow_aupro(masks, maps, limit, thresholds=None):
    """The definitions read aloud: one threshold after another, a curve, trapezoids."""
    components, normal = slow_components(masks, maps)
    curve = []
    if thresholds is None:
        everything = np.unique(np.concatenate([normal, *components]))
        for t in [np.inf, *everything[::-1], -np.inf]:
            fpr = np.mean(normal > t)
            curve.append((fpr, np.mean([np.mean(c > t) for c in components])))
    else:
        for position in np.linspace(0, len(normal) - 1, num=thresholds, dtype=int)[::-1]:
            fpr = 1.0 - (position + 1) / len(normal)
            curve.append((fpr, np.mean([np.mean(c > normal[position]) for c in components])))
        curve.append((1.0, 1.0))
    x, y = [p[0] for p in curve], [p[1] for p in curve]
    if limit not in x:
        i = bisect(x, limit)
        y.insert(i, y[i - 1] + (y[i] - y[i - 1]) * (limit - x[i - 1]) / (x[i] - x[i - 1]))
        x.insert(i, limit)
    return sum(0.5 * (y[i] + y[i - 1]) * (x[i] - x[i - 1]) for i in range(1, len(x)) if x[i] <= limit) / limit


@st.composite
def scored_images(draw, levels=12):
    """A few small images of differing sizes with few distinct scores, so that ties abound."""
    masks, maps = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(2, 7)), draw(st.integers(2, 7)))
        size = shape[0] * shape[1]
        mask = draw(st.lists(st.booleans(), min_size=size, max_size=size))
        scores = draw(st.lists(st.integers(0, levels), min_size=size, max_size=size))
        masks.append(np.array(mask).reshape(shape))
        maps.append(np.array(scores, dtype=np.float32).reshape(shape))
    masks[0][0, 0], masks[0][-1, -1] = True, False
    return masks, maps


limits = st.sampled_from([0.01, 0.05, 0.25, 0.3, 0.5, 1.0])


@needs_shared
def test_published_numbers():
    with np.load(SHARED / "golden" / "metrics.npz", allow_pickle=False) as z:
        masks, maps = z["gt"], z["maps"]
        published = dict(zip((str(n) for n in z["names"]), z["values"].tolist(), strict=True))
    seen = 0
    for name, value in published.items():
        if name.startswith("aupro@"):
            limit, thresholds = name.removeprefix("aupro@").split("_t")
            assert aupro(masks, maps, float(limit), int(thresholds)) == pytest.approx(value, abs=1e-12), name
            seen += 1
    assert seen == 8
    assert pixel_auroc(masks, maps) == pytest.approx(published["p_auroc"], abs=1e-12)
    labels = masks.any(axis=(1, 2)).astype(int)
    assert auroc(labels, maps.max(axis=(1, 2))) == pytest.approx(published["i_auroc_max"], abs=1e-12)
    # More thresholds come ever nearer to exact integration.
    for limit in (0.3, 0.01):
        exact = aupro(masks, maps, limit)
        errors = [abs(aupro(masks, maps, limit, n) - exact) for n in (99, 300, 3000, 100_000)]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 3e-3 * (0.01 / limit)


@settings(max_examples=150, deadline=None)
@given(scored_images(), limits)
def test_exact_aupro_is_the_slow_reference(images, limit):
    assert aupro(*images, limit) == pytest.approx(slow_aupro(*images, limit), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(scored_images(), limits, st.integers(2, 90))
def test_sampled_aupro_is_the_slow_reference(images, limit, thresholds):
    expected = slow_aupro(*images, limit, thresholds)
    assert aupro(*images, limit, thresholds) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(scored_images(), limits)
def test_metrics_see_only_the_order(images, limit):
    masks, maps = images
    bent = [np.exp2(m.astype(np.float64)) - 7.0 for m in maps]
    for thresholds in (None, 11):
        assert aupro(masks, bent, limit, thresholds) == aupro(masks, maps, limit, thresholds)
    assert pixel_auroc(masks, bent) == pixel_auroc(masks, maps)


@settings(max_examples=60, deadline=None)
@given(scored_images(levels=3))
def test_pixel_metrics_of_one_component(images):
    """Over the whole range, AUPRO of a single component is the pixel AUROC."""
    mask, scores = np.zeros_like(images[0][0]), images[1][0]
    mask[0, :] = True
    assert aupro([mask], [scores], 1.0) == pytest.approx(pixel_auroc([mask], [scores]), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), limits)
def test_exact_is_the_limit_of_many_thresholds(seed, limit):
    """Without ties, a threshold at each of n normal pixels misses at most n triangles: 1 / (2 n) in all."""
    rng = np.random.default_rng(seed)
    maps = rng.permutation(6 * 20 * 20).reshape(6, 20, 20).astype(np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[:3, 4:9, 5:12] = True
    maps[:3, 4:9, 5:12] += 700.5
    n = int((~masks).sum())
    bound = 1.0 / (2 * n) / limit + 1e-12
    assert abs(aupro(masks, maps, limit, n) - aupro(masks, maps, limit)) <= bound


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-4, 4)), min_size=0, max_size=30))
def test_auroc_is_the_slow_reference_and_symmetric(pairs):
    labels = [0, 1, *(int(y) for y, _ in pairs)]
    scores = [1.0, 0.0, *(float(s) for _, s in pairs)]
    value = auroc(labels, scores)
    assert value == pytest.approx(slow_auroc(labels, scores), abs=1e-15)
    assert auroc([1 - y for y in labels], scores) == pytest.approx(1.0 - value, abs=1e-15)
    assert auroc(labels, [-s for s in scores]) == pytest.approx(1.0 - value, abs=1e-15)


def test_components_touch_at_corners():
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.uint8)
    assert pool_pixels([mask], [np.zeros((4, 3))]).components == 2


def test_valid_leaves_pixels_out_of_both_sides():
    rng = np.random.default_rng(0)
    scores = rng.random((12, 10)).astype(np.float32)
    mask = np.zeros((12, 10), dtype=bool)
    mask[2:5, 1:6] = True
    valid = np.ones((12, 10), dtype=bool)
    valid[:, 5:] = False
    cropped = (mask[:, :5], scores[:, :5])
    assert pixel_auroc([mask], [scores], [valid]) == pixel_auroc([cropped[0]], [cropped[1]])
    assert aupro([mask], [scores], 0.3, valid=[valid]) == aupro([cropped[0]], [cropped[1]], 0.3)


def test_perfect_and_blind_maps():
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:4, 2:5] = True
    for limit in (0.01, 0.3, 1.0):
        assert aupro([mask], [mask.astype(np.float32)], limit) == pytest.approx(1.0, abs=1e-12)
        # A constant map is a coin: its curve is the diagonal, whose area up to L is L^2 / 2.
        assert aupro([mask], [np.ones((8, 8))], limit) == pytest.approx(limit / 2)
        assert aupro([mask], [-mask.astype(np.float32)], limit) == pytest.approx(0.0, abs=1e-12)


def test_full_size_is_fast():
    """200 maps of 224 x 224 (10 million pixels)."""
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((224, 224), dtype=np.float32) for _ in range(200)]
    masks = [np.zeros((224, 224), dtype=bool) for _ in maps]
    for i, mask in enumerate(masks[:150]):
        mask[40 : 50 + i, 60:90] = True
        mask[5:9, 10:200] = True
    start = time.process_time()
    pooled = pool_pixels(masks, maps)
    values = [pooled.auroc(), pooled.aupro(0.3), pooled.aupro(0.01), pooled.aupro(0.3, 3000)]
    assert time.process_time() - start < 10.0
    assert pooled.normal.dtype == np.float32
    np.testing.assert_allclose(values, [0.5, 0.15, 0.005, 0.15], atol=3e-3)


M = np.array([[1, 0], [0, 0]])
S = np.array([[3.0, 1.0], [0.0, 2.0]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: aupro([M * 0], [S], 0.3), "no defect pixel"),
        (lambda: aupro([M * 0 + 1], [S], 0.3), "no normal pixel"),
        (lambda: aupro([M], [S * np.nan], 0.3), "NaN"),
        (lambda: aupro([M], [S[:1]], 0.3), "same (H, W)"),
        (lambda: aupro(M, S, 0.3), "same (H, W)"),
        (lambda: aupro([M, M], [S], 0.3), "2 masks and 1 maps"),
        (lambda: aupro([M], [S], 0.3, valid=[]), "0 valid masks"),
        (lambda: aupro([M], [S], 0.3, valid=[M[:1]]), "valid mask 0"),
        (lambda: aupro([M], [S], 0.0), "limit 0.0"),
        (lambda: aupro([M], [S], 1.5), "limit 1.5"),
        (lambda: aupro([M], [S], float("nan")), "limit nan"),
        (lambda: aupro([M], [S], 0.3, 1), "thresholds 1"),
        (lambda: aupro([M], [S], 0.3, True), "thresholds True"),
        (lambda: auroc([0, 0], [1.0, 2.0]), "0 defective and 2 good"),
        (lambda: auroc([1, 1], [1.0, 2.0]), "2 defective and 0 good"),
        (lambda: auroc([0, 1], [1.0, float("nan")]), "NaN"),
        (lambda: auroc([0, 1, 1], [1.0, 2.0]), "same length"),
        (lambda: auroc([0, 2], [1.0, 2.0]), "labels other than 0 and 1"),
        (lambda: auroc([0, 1], ["a", "b"]), "numbers"),
        (lambda: recall([], 1.0), "no defective part"),
        (lambda: recall([1.0], float("nan")), "threshold nan"),
        (lambda: threshold_at_false_rejects([], 0.05), "no good part"),
        (lambda: threshold_at_false_rejects([1.0], 1.0), "rate 1.0"),
    ],
)
def test_bad_input_is_one_clear_error(call, words):
    with pytest.raises(EdgeAdError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.sampled_from([0.0, 0.05, 0.1, 0.29, 0.5]))
def test_threshold_at_false_rejects(scores, rate):
    t = threshold_at_false_rejects(scores, rate)
    assert false_reject_rate(scores, t) <= rate + 1e-12
    lower = [s for s in scores if s < t]
    if lower:  # it is the lowest such score
        assert false_reject_rate(scores, max(lower)) > rate


def test_shares_count_strictly_above():
    assert false_reject_rate([1.0, 2.0, 3.0, 4.0], 2.0) == 0.5
    assert recall([1.0, 2.0, 3.0, 4.0], 4.0) == 0.0
    assert threshold_at_false_rejects(np.arange(1, 61), 0.05) == 57.0
