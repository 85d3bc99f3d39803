"""The element-wise functions of the scoring kernels, the matrix product below them, and the threads around them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.special import erf, expit

from edge_ad.runtime import jit
from edge_ad.runtime.score_kernels import anchor_distance, gelu, rows_distance, sigmoid, trapezoid, unit_distance


@jit.compiled()
def each(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    for i in range(len(x)):
        a[i], b[i] = gelu(x[i]), sigmoid(x[i])


def test_gelu_and_sigmoid_over_their_whole_range() -> None:
    x = np.concatenate([np.linspace(-30, 30, 300_001), [0, -0.0, 1e-30, -1e30, 1e30]]).astype(np.float32)
    found = np.empty_like(x), np.empty_like(x)
    each(x, *found)
    exact = x.astype(np.float64)
    want = 0.5 * exact * (1 + erf(exact / np.sqrt(2))), expit(exact)
    inside = np.abs(x) < 30
    # GELU in units of its input: what erf is off by, halved; plus the rounding of the result.
    error = np.abs(found[0] - want[0])[inside] / np.maximum(np.abs(exact[inside]), 1e-3)
    assert float(error.max()) < 4e-7
    assert float(np.abs(found[1] - want[1]).max()) < 4e-7
    assert found[0][-1] == np.float32(1e30) and abs(float(found[0][-2])) <= 1e30 * 1e-7


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / max(np.linalg.norm(x), 1e-12)


@pytest.mark.parametrize("apart", [1e-4, 0.05, 1.0])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (30, 0.2), (1e-5, 1e4), (0, 3), (2, 0), (0, 0)])
def test_distances_of_unit_vectors_whatever_their_lengths(left: float, right: float, apart: float) -> None:
    rng = np.random.default_rng(3)
    width, rest = 37, 50
    a = rng.normal(size=rest)
    b = a[:width] + apart * rng.normal(size=width)
    a, b = (left * a).astype(np.float32), (right * b).astype(np.float32)
    wanted = np.linalg.norm(_unit(a[:width]) - _unit(b))
    row = np.concatenate([a[:width], b])
    assert abs(rows_distance(row, 0, width, width) - wanted) < 4e-7
    longer = np.linalg.norm(_unit(a) - np.pad(_unit(b), (0, rest - width)))
    offset = np.zeros(width, np.float32)
    assert abs(unit_distance(a, b.copy(), 0, offset, width, rest) - longer) < 4e-7
    anchor = _unit(rng.normal(size=rest)).astype(np.float32)
    out = np.empty((1, 1), np.float32)
    beyond = np.array([(anchor[width:] ** 2).sum()], np.float32)
    anchor_distance(b.copy(), 0, offset, width, anchor[:width].copy(), beyond, out, 0)
    assert abs(out[0, 0] - np.linalg.norm(anchor - np.pad(_unit(b), (0, rest - width)))) < 4e-7


def test_not_a_number_stays_one() -> None:
    x = np.full(20, np.nan, np.float32)
    found = np.empty_like(x), np.empty_like(x)
    each(x, *found)
    assert np.isnan(found[0]).all() and np.isnan(found[1]).all()


@pytest.mark.parametrize(("size", "width"), [(1, 1), (5, 9), (9, 5), (64, 64), (65, 64), (129, 128), (200, 70)])
@pytest.mark.parametrize("step", [1, 16, 64])
def test_a_triangular_product_is_the_whole_one(size: int, width: int, step: int) -> None:
    rng = np.random.default_rng(size)
    weight = np.triu(rng.normal(size=(size, width))).astype(np.float32)
    hidden = rng.normal(size=(7, width)).astype(np.float32)
    found = np.full(7 * size, np.nan, np.float32)
    sizes = np.zeros(6, np.int32)
    trapezoid(found, hidden.ravel(), weight.ravel(), 7, size, width, step, sizes, jit.LETTERS, jit.ONE_ZERO)
    np.testing.assert_allclose(found.reshape(7, size), hidden @ weight.T, rtol=1e-5, atol=1e-5)


def test_tasks_are_shared_and_what_one_raises_is_raised() -> None:
    seen: list[str] = []
    barrier = threading.Barrier(2, timeout=10)

    def meet() -> None:
        barrier.wait()
        seen.append(threading.current_thread().name)

    jit.share([meet, meet], 2)  # one thread alone would wait for ever
    assert len(set(seen)) == 2

    def fail() -> None:
        raise ValueError("no")

    for threads in (1, 2):
        with pytest.raises(ValueError, match="no"):
            jit.share([fail, lambda: None], threads)


def test_where_nothing_can_be_cached_kernels_compile_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    space: dict[str, object] = {"compiled": jit.compiled}
    exec("@compiled()\ndef twice(x):\n    return 2 * x", space)  # no file, hence no place for a cache
    assert space["twice"](21) == 42  # type: ignore[operator]
    assert "set NUMBA_CACHE_DIR" in caplog.text
