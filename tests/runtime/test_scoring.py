"""Interpolation as sparse matrices, the fusion, and that chunks do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle import TensorSpec
from edge_ad.models.interpolate import bilinear, three_nearest
from edge_ad.presets import load_preset
from edge_ad.runtime.point_input import PointInput
from edge_ad.runtime.scoring import bilinear_matrix, fuse, point_matrix, score_pixels


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 60))
def test_bilinear_matrix_is_torchs_interpolation(grid: int, size: int) -> None:
    tokens = np.random.default_rng(grid).normal(size=(grid * grid, 3)).astype(np.float32)
    matrix = bilinear_matrix(grid, size)
    expected = bilinear(torch.from_numpy(tokens), size).numpy()
    # torch places its samples in float32, which is exact for the ratios that presets use.
    np.testing.assert_allclose(
        matrix @ tokens, expected, atol=2e-6 if size % grid == 0 and size // grid in (1, 2, 4, 8) else 2e-5
    )
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)).ravel(), 1, atol=1e-6)


def points(n: int, groups: int, seed: int = 0) -> PointInput:
    rng = np.random.default_rng(seed)
    index = np.stack([rng.permutation(groups)[:3] for _ in range(n)]).astype(np.int64)
    weight = rng.random((n, 3)).astype(np.float32)
    weight /= weight.sum(axis=1, keepdims=True)
    return PointInput(
        np.zeros((groups, 4, 3), np.float32),
        np.zeros((groups, 3), np.float32),
        index,
        weight,
        np.arange(groups)[:, None],
    )


def test_point_matrix_is_the_references_interpolation() -> None:
    p = points(40, 9)
    tokens = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    expected = three_nearest(
        torch.from_numpy(tokens), torch.from_numpy(p.interp_index), torch.from_numpy(p.interp_weight)
    )
    np.testing.assert_allclose(point_matrix(p, 9) @ tokens, expected.numpy(), atol=1e-6)


class Rows:
    """A score graph that gives its rows back, so that gathering can be seen."""

    def __init__(self, text: bool) -> None:
        self.inputs = tuple(
            TensorSpec(n, ("rows", 1), "float32") for n in ("rgb_rows", "point_rows", *(("class_index",) * text))
        )
        self.outputs = (TensorSpec("rgb", ("rows",), "float32"), TensorSpec("3d", ("rows",), "float32"))
        self.sizes: list[int] = []
        self.classes: list[int] = []

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        assert set(inputs) == {s.name for s in self.inputs}
        assert all(v.dtype == np.float32 for k, v in inputs.items() if k != "class_index")
        self.sizes.append(len(inputs["rgb_rows"]))
        if "class_index" in inputs:
            assert inputs["class_index"].dtype == np.int64
            self.classes += inputs["class_index"].tolist()
        return {"rgb": inputs["rgb_rows"][:, 0], "3d": inputs["point_rows"][:, 0]}


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_only_valid_pixels_are_gathered_in_order_whatever_the_chunk(chunk: int) -> None:
    valid = np.random.default_rng(2).random((20, 20)) < 0.3
    n = int(valid.sum())
    rgb_table = np.random.default_rng(3).normal(size=(16, 2)).astype(np.float32)
    point_table = np.random.default_rng(4).normal(size=(9, 2)).astype(np.float32)
    p = points(n, 9)
    session = Rows(text=True)
    got = score_pixels(session, rgb_table, point_table, valid, p, 1, chunk=chunk)
    assert sum(session.sizes) == n and max(session.sizes) <= chunk
    assert set(session.classes) == {1}
    np.testing.assert_allclose(got["rgb"], (bilinear_matrix(4, 20) @ rgb_table)[valid.ravel(), 0], atol=1e-6)
    np.testing.assert_allclose(got["3d"], (point_matrix(p, 9) @ point_table)[:, 0], atol=1e-6)
    some = np.array([0, 5, n - 1])
    part = score_pixels(Rows(text=False), rgb_table, point_table, valid, p, 1, rows=some, chunk=chunk)
    for name in ("rgb", "3d"):
        np.testing.assert_array_equal(part[name], got[name][some])


def test_fusion_is_equation_16_over_the_balance() -> None:
    rng = np.random.default_rng(5)
    d = {k: rng.random(30).astype(np.float32) for k in ("rgb", "3d", "text_rgb", "text_3d")}
    eq16 = replace(load_preset("compact").fusion, alpha=0.3, beta=0.8, combine="product")
    got = fuse(d, eq16, (0.5, 2.0, 4.0))
    expected = 0.3 * d["rgb"] * d["3d"] / (0.5 * 2.0) + 0.8 * d["text_rgb"] * d["text_3d"] / 4.0
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got.dtype == np.float32
    without = fuse(d, replace(eq16, beta=0.0), (0.5, 2.0, 4.0))
    np.testing.assert_allclose(without, 0.3 * d["rgb"] * d["3d"], rtol=1e-6)
    no_text = fuse({k: d[k] for k in ("rgb", "3d")}, eq16, (0.5, 2.0, 4.0))
    np.testing.assert_array_equal(no_text, without)
    larger = fuse(d, replace(eq16, beta=0.0, combine="max"), (0.5, 2.0, 4.0))
    np.testing.assert_allclose(larger, 0.3 * np.maximum(d["rgb"] / 0.5, d["3d"] / 2.0), rtol=1e-6)
