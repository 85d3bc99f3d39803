"""The classes' standardisations taken apart: the same map, in fewer bytes where FP16 may be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from edge_ad.export.precision.fp16 import cast_fp16, half_nodes
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import kept_by_rule, layers
from edge_ad.export.precision.shared import factors, share_standardisation
from edge_ad.export.precision.twin import rounding_twin
from tests.export.precision.models import by_class, run


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
def test_the_product_is_every_map_again(seed: int, classes: int, out: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.standard_normal((classes, out, width)) * 10.0 ** rng.integers(-2, 3, (1, 1, width))
    turns, root = factors(maps)
    np.testing.assert_allclose(turns @ root, maps, rtol=1e-6, atol=1e-6 * np.abs(maps).max())
    together = np.einsum("kij,kil->jl", turns, turns)
    values = np.linalg.eigvalsh(together)
    assert np.all((values < 1e-6) | (np.abs(values - classes) < 1e-4)), "the turns have nothing to whiten"


def test_a_graph_gives_the_same_and_its_turns_go_to_half() -> None:
    data, given = by_class(4)
    shared = share_standardisation(data, "tokens")
    assert isinstance(shared, bytes) and shared != data
    want = run(data, given)["table"]
    np.testing.assert_allclose(run(shared, given)["table"], want, atol=2e-4 * np.abs(want).max())
    graph = Graph(shared)
    kept = kept_by_rule(graph)
    assert kept["standardise_shared"] == "standardisation" and "standardise" not in kept
    assert {"standardise", "gweight", "hweight"} <= half_nodes(graph, kept)
    assert [layer.name for layer in layers(graph)] == ["fc"], "neither part of it is a layer for INT8"


def test_fp16_becomes_smaller_and_stays_exact() -> None:
    data, given = by_class(5)
    want = run(data, given)["table"]
    halves, error = {}, {}
    for name, model in (("file", data), ("shared", share_standardisation(data, "tokens"))):
        halves[name] = cast_fp16(Graph(model), kept_by_rule(Graph(model)))
        found = run(rounding_twin(halves[name]).onnx, given)["table"]
        error[name] = np.abs(found - want).max() / np.abs(want).max()
    assert len(halves["shared"]) < 0.85 * len(halves["file"]) and error["shared"] < 5e-3
    naive = cast_fp16(Graph(data), set())  # FP16 weights for the maps as they are: what this module is for
    assert (
        np.abs(run(rounding_twin(naive).onnx, given)["table"] - want).max() > 5 * error["shared"] * np.abs(want).max()
    )


def test_it_is_the_same_whatever_threads_the_process_has() -> None:
    """Else a calibration and its own table, applied again, would make different files."""
    data, _ = by_class(3, width=200)
    made = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads, "blas"):
            made.append(share_standardisation(data, "tokens"))
    assert made[0] == made[1] == made[2] != data


@pytest.mark.parametrize("classes", [1, 2])
def test_with_few_classes_nothing_is_changed(classes: int) -> None:
    data, _ = by_class(classes)
    assert share_standardisation(data, "tokens") is data


def test_a_graph_without_conditions_is_left_alone(tiny_export: Path) -> None:
    path = tiny_export / "onnx" / "rgb.onnx"
    assert share_standardisation(path, "rgb") is path
