"""The classes' standardisations taken apart: the same map, in fewer bytes where FP16 may be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_ad.export.precision.fp16 import cast_fp16, half_nodes
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import kept_by_rule, layers
from edge_ad.export.precision.shared import factors, share_standardisation
from edge_ad.export.precision.twin import rounding_twin
from tests.export.precision.models import run

D, TOKENS = 24, 40


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


def by_class(classes: int, seed: int = 0) -> tuple[bytes, dict[str, np.ndarray]]:
    """What the export makes of ``mappers.condition = "class"``: whitening of strongly correlated channels, a layer."""
    rng = np.random.default_rng(seed)
    mix = np.linalg.qr(rng.standard_normal((D, D)))[0] * np.geomspace(30, 0.02, D)
    tokens = (rng.standard_normal((TOKENS, D)) @ mix.T + 2).astype(np.float32)
    turns = np.stack([np.linalg.qr(rng.standard_normal((D, D)))[0] for _ in range(classes)])
    weight = (turns @ np.linalg.inv(mix)).astype(np.float32)
    offset = (-weight @ np.full(D, 2, np.float32)).astype(np.float32)
    layer = rng.standard_normal((64, D)).astype(np.float32)
    values = {"point_weight": weight, "point_offset": offset, "fc.weight": layer, "zero": np.array(0, np.int64)}
    nodes = [
        *(
            helper.make_node("Gather", [f"point_{w}", "class_index"], [f"{w}_of"], f"g{w}")
            for w in ("weight", "offset")
        ),
        *(helper.make_node("Gather", [f"{w}_of", "zero"], [f"{w}_own"], f"h{w}") for w in ("weight", "offset")),
        helper.make_node("Gemm", ["tokens", "weight_own", "offset_own"], ["x"], "standardise", transB=1),
        helper.make_node("Gemm", ["x", "fc.weight"], ["table"], "fc", transB=1),
    ]
    f = TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("tokens", f, [TOKENS, D]),
        helper.make_tensor_value_info("class_index", TensorProto.INT64, [1]),
    ]
    out = [helper.make_tensor_value_info("table", f, [TOKENS, 64])]
    weights = [numpy_helper.from_array(v, n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "tokens", inputs, out, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(), {"tokens": tokens, "class_index": np.array([1], np.int64)}


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


@pytest.mark.parametrize("classes", [1, 2])
def test_with_few_classes_nothing_is_changed(classes: int) -> None:
    data, _ = by_class(classes)
    assert share_standardisation(data, "tokens") is data


def test_a_graph_without_conditions_is_left_alone(tiny_export: Path) -> None:
    path = tiny_export / "onnx" / "rgb.onnx"
    assert share_standardisation(path, "rgb") is path
