"""Every scoring kernel, executed by the block emulator, against its NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.kernels import score_reference as ref
from tests.emulator.emulate import SCHEDULES, emulate, needs_compiler

pytestmark = needs_compiler
SIZE, GRID, GROUPS = 24, 6, 20
STORAGE = {"f32": (np.float32, 1e-5), "f16": (np.float16, 2e-3)}
sizes = st.integers(1, 70)


class Scene:
    """Random tables, pixels and neighbours."""

    def __init__(self, seed: int, n: int, rgb_width: int, point_width: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rgb = self.rng.normal(size=(GRID * GRID, rgb_width)).astype(np.float32)
        self.points = self.rng.normal(size=(GROUPS, point_width)).astype(np.float32)
        self.n = n
        self.pixel = np.sort(self.rng.choice(SIZE * SIZE, n, replace=False)).astype(np.int32)
        self.near = np.stack([self.rng.choice(GROUPS, 3, replace=False) for _ in range(n)]).astype(np.int32)
        weight = self.rng.random((n, 3)).astype(np.float32) + np.float32(1e-3)
        self.weight = weight / weight.sum(axis=1, keepdims=True)
        self.low, self.share = ref.axis_taps(SIZE, GRID)

    def colour_taps(self, first: int = 0) -> ref.Taps:
        return ref.bilinear_taps(self.pixel[first:], SIZE, GRID)

    def near_taps(self, first: int = 0) -> ref.Taps:
        return self.near[first:].astype(np.int64), self.weight[first:].astype(np.float64)

    @property
    def colour_args(self) -> tuple[Any, ...]:
        return self.pixel, self.low, self.share, SIZE, GRID


def stored(array: np.ndarray, kind: str) -> np.ndarray:
    """As a kernel takes it: float32, or FP16 as 16-bit words."""
    return array if kind == "f32" else array.astype(np.float16).view(np.uint16)


def seen(array: np.ndarray, kind: str) -> np.ndarray:
    """The numbers that are stored."""
    return array if kind == "f32" else array.astype(np.float16).astype(np.float32)


def blocks(n: int, per_block: int = 4) -> int:
    return -(-n // per_block)


def many(n: int) -> np.ndarray:
    return np.array([n], np.int32)


def zero() -> np.ndarray:
    return np.zeros(1, np.int32)


def test_taps_are_those_of_the_runtime() -> None:
    from edge_ad.runtime.scoring import bilinear_matrix

    index, weight = ref.bilinear_taps(np.arange(SIZE * SIZE), SIZE, GRID)
    dense = np.zeros((SIZE * SIZE, GRID * GRID))
    for k in range(4):
        np.add.at(dense, (np.arange(SIZE * SIZE), index[:, k]), weight[:, k])
    np.testing.assert_allclose(dense, bilinear_matrix(GRID, SIZE).toarray(), atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=6)
@given(n=sizes, dim=st.integers(1, 90), dim_rgb=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_gacm(kind: str, schedule: str, n: int, dim: int, dim_rgb: int, seed: int) -> None:
    s = Scene(seed, n, dim_rgb + 4 * dim + 3, dim + 5)
    gamma, beta = s.rng.normal(1, 0.2, dim).astype(np.float32), s.rng.normal(0, 0.2, dim).astype(np.float32)
    first = n // 3
    out = np.full(n, -1, np.float32)
    kernel = getattr(emulate("score_gacm").use(schedule, seed), f"score_gacm_{kind}")
    kernel[blocks(n - first) + 2, 128, 4 * 2 * dim * 4](
        stored(s.rgb, kind), s.rgb.shape[1], stored(s.points, kind), s.points.shape[1], *s.colour_args, s.near,
        s.weight, dim_rgb, dim, gamma, beta, 1e-5, many(n), first, n - first + 9, out,
    )  # fmt: skip
    args = (s.colour_taps(first), s.near_taps(first), dim_rgb, dim, gamma, beta, 1e-5)
    assert (out[:first] == -1).all()
    np.testing.assert_allclose(out[first:], ref.gacm(seen(s.rgb, kind), seen(s.points, kind), *args), atol=2e-5)
    if dim > 8:  # two numbers that nearly cancel lose all their digits in LayerNorm: no bound holds for them
        np.testing.assert_allclose(out[first:], ref.gacm(s.rgb, s.points, *args), atol=2 * STORAGE[kind][1])


@pytest.mark.parametrize("activate", [0, 1])
@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=8)
@given(n=sizes, hidden=st.integers(1, 70), column=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_operands(kind: str, activate: int, n: int, hidden: int, column: int, seed: int) -> None:
    dtype, tolerance = STORAGE[kind]
    s = Scene(seed, n, column + hidden + 2, column + hidden + 1)
    first, stride = n // 2, -(-hidden // 32) * 32
    module = emulate("score_operand").use("random", seed)
    for table, taps, args, name in (
        (s.rgb, s.colour_taps(first), s.colour_args, "rgb"),
        (s.points, s.near_taps(first), (s.near, s.weight), "points"),
    ):
        out, overflow = np.full((n - first, stride), np.nan, dtype), zero()
        getattr(module, f"score_operand_{name}_{kind}")[blocks(n - first), 128](
            stored(table, kind), table.shape[1], column, hidden, activate, *args, many(n), first, n - first,
            out if kind == "f32" else out.view(np.uint16), stride, overflow,
        )  # fmt: skip
        wanted = ref.operand(seen(table, kind), taps, column, hidden, stride, bool(activate))
        np.testing.assert_allclose(out.astype(np.float64), wanted, rtol=tolerance, atol=2e-6)
        assert overflow[0] == 0 and not out[:, hidden:].any()


@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=6)
@given(
    m=st.integers(1, 150),
    n=st.integers(1, 90),
    depth=st.integers(1, 70),
    triangular=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_product(kind: str, m: int, n: int, depth: int, triangular: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stride = -(-depth // 32) * 32
    a, w = np.zeros((m, stride), np.float32), np.zeros((n, stride), np.float32)
    a[:, :depth], w[:, :depth] = rng.normal(size=(m, depth)), rng.normal(size=(n, depth))
    if triangular:
        w = np.triu(w)
    bias = rng.normal(size=n).astype(np.float32)
    c = np.full((m, n + 1), 7, np.float32)
    threads = 256 if kind == "f32" else 128
    getattr(emulate("score_product").use("random", seed), f"score_product_{kind}")[
        (-(-n // 64), -(-m // 64) + 1), threads
    ](
        stored(a, kind),
        stride,
        stored(w, kind),
        stride,
        bias,
        c,
        n + 1,
        many(m + 3),
        3,
        m + 70,
        n,
        stride,
        int(triangular),
    )
    assert (c[:, n] == 7).all()
    # FP16 products are exact in float32, so both kinds only differ from the reference by the order of the sums.
    np.testing.assert_allclose(c[:, :n], ref.product(seen(a, kind), seen(w, kind), bias), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=8)
@given(n=sizes, dim=st.integers(1, 90), seed=st.integers(0, 2**31), near=st.booleans(), cut=st.integers(0, 20))
def test_distance_to_the_colour_feature(kind: str, n: int, dim: int, seed: int, near: bool, cut: int) -> None:
    s = Scene(seed, n, dim + 3, 1)
    mapped = s.rng.normal(size=(n, dim + 2)).astype(np.float32)
    feature = ref.interpolate(seen(s.rgb, kind), s.colour_taps())[:, :dim]
    if near:  # as on a good part: nearly the same direction
        mapped[:, :dim] = feature * 3 + 0.02 * mapped[:, :dim]
    rank = max(1, dim - cut)
    out = np.zeros(n, np.float32)
    getattr(emulate("score_distance"), f"score_distance_rgb_{kind}")[blocks(n), 128, 4 * dim * 4](
        stored(s.rgb, kind), dim + 3, dim, *s.colour_args, many(n), 0, n + 1, mapped, rank, dim + 2, out
    )
    mapped[:, rank:] = 0
    np.testing.assert_allclose(out, ref.distance(feature, mapped[:, :dim].astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_a_zero_vector_has_distance_one() -> None:
    """As torch: x / max(|x|, 1e-12) of a zero vector is zero, so the other unit vector's norm is left."""
    s = Scene(0, 5, 8, 1)
    out = np.zeros(5, np.float32)
    emulate("score_distance").score_distance_rgb_f32[2, 128, 4 * 8 * 4](
        s.rgb, 8, 8, *s.colour_args, many(5), 0, 5, np.zeros((5, 8), np.float32), 8, 8, out
    )
    np.testing.assert_allclose(out, 1, rtol=1e-6)


@settings(max_examples=8)
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


@settings(max_examples=20)
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


@pytest.mark.parametrize("text", [False, True])
def test_fuse_is_numpys(text: bool) -> None:
    rng = np.random.default_rng(1)
    n = 300
    pixel = np.sort(rng.choice(400, n, replace=False)).astype(np.int32)
    d = rng.random((4, n)).astype(np.float32)
    out = np.zeros(400, np.float32)
    emulate("score_distance").score_fuse[2, 256](
        d[0], d[1], d[2] if text else None, d[3] if text else None, 0.7, 0.03, pixel, many(n), out
    )
    wanted = np.zeros(400, np.float32)
    wanted[pixel] = ref.fuse(d[0], d[1], (d[2], d[3]) if text else None, 0.7, 0.03)
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("vertical", [False, True])
@settings(max_examples=10)
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


@settings(max_examples=8)
@given(n=sizes, seed=st.integers(0, 2**31))
def test_levels(n: int, seed: int) -> None:
    s = Scene(seed, n, 1, 1)
    levels = [s.rng.uniform(0.1, 2, k).astype(np.float32) for k in (GRID * GRID, GROUPS)]
    d = [s.rng.random(n).astype(np.float32) for _ in range(2)]
    wanted = ref.over_levels(*d, *levels, s.colour_taps(), s.near_taps())
    emulate("score_distance").score_levels[2, 256](*levels, *s.colour_args, s.near, s.weight, many(n), *d)
    for found, w in zip(d, wanted):
        np.testing.assert_allclose(found, w, rtol=1e-5)


@pytest.mark.parametrize("pool", [1, 2, 6])
def test_pool(pool: int) -> None:
    rng = np.random.default_rng(pool)
    tokens = rng.normal(size=(GROUPS, 37)).astype(np.float32)
    index = rng.integers(0, GROUPS, (GROUPS, pool)).astype(np.int32)
    out = np.full_like(tokens, np.nan)
    emulate("score_tokens").score_pool[-(-GROUPS * 37 // 256), 256](tokens, 37, index, pool, GROUPS, out)
    np.testing.assert_array_equal(out, ref.pool(tokens, index))
    np.testing.assert_allclose(out, tokens[index].mean(axis=1), rtol=1e-5, atol=1e-6)


def test_every_fp16_number_and_the_roundings_between() -> None:
    """The conversions of the emulator are those of the hardware: to nearest even, subnormals kept."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1].astype(np.float64) + halves[1:]) / 2
    values = np.concatenate([halves, middle.astype(np.float32), np.nextafter(middle.astype(np.float32), np.float32(0))])
    values = np.concatenate([values, -values])
    out, overflow = np.zeros(len(values), np.uint16), zero()
    emulate("score_tokens").score_pack[3, 256](values, len(values), out, overflow)
    np.testing.assert_array_equal(out, values.astype(np.float16).view(np.uint16))
    assert overflow[0] == 0


@pytest.mark.parametrize("bad", [65520.0, -1e6, np.inf, np.nan])
def test_what_leaves_fp16_is_counted(bad: float) -> None:
    values, overflow = np.ones(700, np.float32), zero()
    values[[5, 600]] = bad
    emulate("score_tokens").score_pack[1, 256](values, len(values), np.zeros(700, np.uint16), overflow)
    assert overflow[0] == 2
