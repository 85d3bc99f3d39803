"""The scoring kernels up to the distances: tables, interpolation, GACM, products, against their NumPy references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.runtime.kernels import score_reference as ref
from tests.emulator.emulate import SCHEDULES, emulate, examples, needs_compiler
from tests.runtime.kernels.scoring import (
    GRID,
    GROUPS,
    SIZE,
    STORAGE,
    Scene,
    blocks,
    many,
    packed,
    seen,
    sizes,
    stored,
    zero,
)

pytestmark = needs_compiler


def test_taps_are_those_of_the_runtime() -> None:
    from edge_ad.runtime.scoring import bilinear_matrix

    index, weight = ref.bilinear_taps(np.arange(SIZE * SIZE), SIZE, GRID)
    dense = np.zeros((SIZE * SIZE, GRID * GRID))
    for k in range(4):
        np.add.at(dense, (np.arange(SIZE * SIZE), index[:, k]), weight[:, k])
    np.testing.assert_allclose(dense, bilinear_matrix(GRID, SIZE).toarray(), atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=examples(6))
@given(n=sizes, dim=st.integers(1, 90), dim_rgb=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_gacm(kind: str, schedule: str, n: int, dim: int, dim_rgb: int, seed: int) -> None:
    s = Scene(seed, n, dim_rgb + 4 * dim + 3, dim + 5)
    gamma, beta = s.rng.normal(1, 0.2, dim).astype(np.float32), s.rng.normal(0, 0.2, dim).astype(np.float32)
    first = n // 3
    out = np.full(n, -1, np.float32)
    kernel = emulate("score_gacm").use(schedule, seed).score_gacm
    kernel[blocks(n - first) + 2, 128, 4 * 2 * dim * 4](
        packed(s.rgb, kind), s.rgb.shape[1], packed(s.points, kind), s.points.shape[1], int(kind == "f16"),
        *s.colour_args, s.near, s.weight, dim_rgb, dim, gamma, beta, 1e-5, many(n), first, n - first + 9, out,
    )  # fmt: skip
    args = (s.colour_taps(first), s.near_taps(first), dim_rgb, dim, gamma, beta, 1e-5)
    assert (out[:first] == -1).all()
    np.testing.assert_allclose(out[first:], ref.gacm(seen(s.rgb, kind), seen(s.points, kind), *args), atol=2e-5)
    if dim > 8:  # two numbers that nearly cancel lose all their digits in LayerNorm: no bound holds for them
        np.testing.assert_allclose(out[first:], ref.gacm(s.rgb, s.points, *args), atol=2 * STORAGE[kind][1])


@pytest.mark.parametrize("activate", [0, 1])
@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=examples(8))
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
        getattr(module, f"score_operand_{name}")[blocks(n - first), 128](
            packed(table, kind), int(kind == "f16"), table.shape[1], column, hidden, activate, *args, many(n), first,
            n - first, out.view(np.uint8), stride, overflow,
        )  # fmt: skip
        wanted = ref.operand(seen(table, kind), taps, column, hidden, stride, bool(activate))
        np.testing.assert_allclose(out.astype(np.float64), wanted, rtol=tolerance, atol=2e-6)
        assert overflow[0] == 0 and not out[:, hidden:].any()


@pytest.mark.parametrize("kind", STORAGE)
@settings(max_examples=examples(6))
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
