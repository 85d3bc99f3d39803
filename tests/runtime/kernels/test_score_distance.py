"""The distance epilogues, classes, levels, fusion and filters, against their NumPy references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.presets import load_preset
from edge_ad.runtime.kernels import score_reference as ref
from edge_ad.runtime.scoring import fuse
from tests.emulator.emulate import emulate, examples, needs_compiler
from tests.runtime.kernels.scoring import (
    GRID,
    GROUPS,
    STORAGE,
    Scene,
    blocks,
    many,
    packed,
    seen,
    sizes,
)

pytestmark = needs_compiler


@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=examples(8))
@given(n=sizes, dim=st.integers(1, 90), seed=st.integers(0, 2**31), near=st.booleans(), cut=st.integers(0, 20))
def test_distance_to_the_colour_feature(kind: str, n: int, dim: int, seed: int, near: bool, cut: int) -> None:
    s = Scene(seed, n, dim + 3, 1)
    mapped = s.rng.normal(size=(n, dim + 2)).astype(np.float32)
    feature = ref.interpolate(seen(s.rgb, kind), s.colour_taps())[:, :dim]
    if near:  # as on a good part: nearly the same direction
        mapped[:, :dim] = feature * 3 + 0.02 * mapped[:, :dim]
    rank = max(1, dim - cut)
    out = np.zeros(n, np.float32)
    emulate("score_distance").score_distance_rgb[blocks(n), 128, 4 * dim * 4](
        packed(s.rgb, kind), int(kind == "f16"), dim + 3, dim, *s.colour_args, many(n), 0, n + 1, mapped, rank,
        dim + 2, out,
    )  # fmt: skip
    mapped[:, rank:] = 0
    np.testing.assert_allclose(out, ref.distance(feature, mapped[:, :dim].astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_a_zero_vector_has_distance_one() -> None:
    """As torch: x / max(|x|, 1e-12) of a zero vector is zero, so the other unit vector's norm is left."""
    s = Scene(0, 5, 8, 1)
    out = np.zeros(5, np.float32)
    emulate("score_distance").score_distance_rgb[2, 128, 4 * 8 * 4](
        packed(s.rgb, "f32"), 0, 8, 8, *s.colour_args, many(5), 0, 5, np.zeros((5, 8), np.float32), 8, 8, out
    )
    np.testing.assert_allclose(out, 1, rtol=1e-6)


@settings(max_examples=examples(8))
@given(n=sizes, dim=st.integers(2, 80), cut=st.integers(0, 9), classes=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_anchors_and_auto(n: int, dim: int, cut: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = ref.unit(rng.normal(size=(classes, dim + cut))).astype(np.float32)
    anchors, rest = whole[:, :dim].copy(), (whole[:, dim:] ** 2).sum(axis=1)
    mapped = [rng.normal(size=(n, dim)).astype(np.float32) for _ in range(2)]
    full = [np.pad(m, ((0, 0), (0, cut))) for m in mapped]
    module = emulate("score_distance").use("random", seed)
    means, chosen, plan = np.zeros(classes), np.full(1, -1, np.int32), np.full(1, -1, np.int64)
    for k in range(2):
        module.score_class_means[classes, 256](anchors, rest, dim, mapped[k], dim, many(n), k, means)
    module.score_choose_class[1, 1](means, classes, chosen, plan)
    assert plan[0] == chosen[0]
    wanted = ref.class_means(whole, *full)
    np.testing.assert_allclose(means, wanted, rtol=1e-5)
    assert wanted[chosen[0]] <= wanted.min() + 1e-6
    rows = []
    for k in range(2):
        out = np.zeros(n, np.float32)
        module.score_distance_anchor[blocks(n), 128](anchors, rest, chosen, dim, mapped[k], dim, many(n), 0, n, out)
        np.testing.assert_allclose(
            out, ref.distance(whole[chosen].astype(np.float64), full[k].astype(np.float64)), rtol=1e-5, atol=1e-6
        )
        rows.append(out)
    mean = np.zeros(1)
    module.score_anchor_mean[1, 256](*rows, many(n), mean)
    assert mean[0] == pytest.approx((rows[0].mean(dtype=np.float64) + rows[1].mean(dtype=np.float64)) / 2, rel=1e-12)


def test_equal_means_choose_the_first_class() -> None:
    chosen = np.full(1, -1, np.int32)
    emulate("score_distance").score_choose_class[1, 1](np.array([2.0, 1.0, 1.0]), 3, chosen, np.zeros(1, np.int64))
    assert chosen[0] == 1


@settings(max_examples=examples(20))
@given(n=st.integers(1, 3000), most=st.sampled_from([1, 2, 7, 1024]), seed=st.integers(0, 99))
def test_subset_is_the_detectors(n: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixel = np.sort(rng.choice(4000, n, replace=False)).astype(np.int32)
    near, weight = rng.integers(0, 50, (n, 3)).astype(np.int32), rng.random((n, 3)).astype(np.float32)
    m = min(n, most)
    rows = np.unique(np.linspace(0, n - 1, m).round().astype(np.int64))
    if most == 1:
        rows = np.array([n - 1])  # one thread, which is the last: NumPy would take the first
    out = np.zeros(most, np.int32), np.zeros((most, 3), np.int32), np.zeros((most, 3), np.float32), many(0)
    emulate("score_distance").score_subset[-(-most // 256), 256](pixel, near, weight, many(n), most, *out)
    assert out[3][0] == m == len(rows)
    for found, wanted in zip(out, (pixel, near, weight)):
        np.testing.assert_array_equal(found[:m], wanted[rows])


@pytest.mark.parametrize("larger", [None, (1.3, 0.4)])
@pytest.mark.parametrize("text", [False, True])
def test_fuse_is_numpys(text: bool, larger: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(1)
    n = 300
    pixel = np.sort(rng.choice(400, n, replace=False)).astype(np.int32)
    d = rng.random((4, n)).astype(np.float32)
    out = np.zeros(400, np.float32)
    how = (int(larger is not None), *(larger or (1.0, 1.0)))
    emulate("score_distance").score_fuse[2, 256](
        d[0], d[1], d[2] if text else None, d[3] if text else None, 0.7, 0.03, *how, pixel, many(n), out
    )
    wanted = np.zeros(400, np.float32)
    wanted[pixel] = ref.fuse(d[0], d[1], (d[2], d[3]) if text else None, 0.7, 0.03, larger)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("combine", ["product", "max"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_reference_of_fuse_is_the_runtimes(combine: str, beta: float) -> None:
    rng = np.random.default_rng(2)
    d = {name: rng.random(50, dtype=np.float32) for name in ("rgb", "3d", "text_rgb", "text_3d")}
    fusion, balance = replace(load_preset("paper").fusion, combine=combine, beta=beta), (1.7, 0.6, 0.9)
    alpha, larger = fusion.alpha / (balance[0] * balance[1]), None
    if combine == "max":
        alpha, larger = fusion.alpha, (1 / balance[0], 1 / balance[1])
    text = (d["text_rgb"], d["text_3d"]) if beta else None
    found = ref.fuse(d["rgb"], d["3d"], text, alpha, beta / balance[2], larger)
    np.testing.assert_array_equal(found, fuse(d, fusion, balance))


@pytest.mark.parametrize("vertical", [False, True])
@settings(max_examples=examples(10))
@given(size=st.integers(1, 40), radius=st.integers(0, 45), over=st.booleans(), seed=st.integers(0, 2**31))
def test_filter(vertical: bool, size: int, radius: int, over: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, taps = rng.random((size, size)).astype(np.float32), rng.random(2 * radius + 1).astype(np.float32)
    valid, weight = rng.integers(0, 2, (size, size)).astype(np.uint8), rng.random((size, size)).astype(np.float32)
    out = np.full_like(image, np.nan)
    emulate("score_filter").score_filter[-(-size * size // 256), 256](
        image, size, radius, taps, 0.5, int(vertical), valid if over else None, weight if over else None, out
    )
    wanted = ref.filter_axis(image, taps, 0.5, vertical)
    wanted = np.where(valid, wanted / np.maximum(weight, 1e-6), 0) if over else wanted
    np.testing.assert_allclose(out, wanted, rtol=2e-5, atol=1e-7)


@settings(max_examples=examples(8))
@given(n=sizes, seed=st.integers(0, 2**31))
def test_levels(n: int, seed: int) -> None:
    s = Scene(seed, n, 1, 1)
    levels = [s.rng.uniform(0.1, 2, k).astype(np.float32) for k in (GRID * GRID, GROUPS)]
    d = [s.rng.random(n).astype(np.float32) for _ in range(2)]
    wanted = ref.over_levels(*d, *levels, s.colour_taps(), s.near_taps())
    emulate("score_distance").score_levels[2, 256](*levels, *s.colour_args, s.near, s.weight, many(n), *d)
    for found, w in zip(d, wanted):
        np.testing.assert_allclose(found, w, rtol=1e-5)
