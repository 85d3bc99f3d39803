"""Q/DQ placement: where, how, and how far the result may lie from float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.int8 import quantise_weight, to_int8
from edge_ad.export.precision.roles import kept_by_rule, quantisable
from tests.export.precision.models import block, model, run, types

GRAPHS = ("rgb", "points", "tokens", "score")


@settings(max_examples=50)
@given(
    weight=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-100, 100, width=32)
    ),
    axis=st.integers(0, 1),
)
def test_a_weight_is_off_by_half_a_step_of_its_channel_at_most(weight: np.ndarray, axis: int) -> None:
    q, scale = quantise_weight(weight, axis)
    assert q.dtype == np.int8 and scale.shape == (weight.shape[axis],)
    assert np.abs(q.astype(int)).max() <= 127 and (scale > 0).all()
    shape = [1] * weight.ndim
    shape[axis] = -1
    back = q.astype(np.float32) * scale.reshape(shape)
    assert (np.abs(back - weight) <= 0.5001 * scale.reshape(shape)).all()


def test_the_graph_has_explicit_symmetric_per_channel_qdq() -> None:
    ranges = {"blocks.0.mlp.fc1": 4.0, "blocks.0.mlp.fc2": 5.0}
    data = to_int8(Graph(block()), ranges, kept_by_rule(Graph(block())))
    found = onnx.load_from_string(data)
    weights = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    quantise = [n for n in found.graph.node if n.op_type == "QuantizeLinear"]
    dequantise = [n for n in found.graph.node if n.op_type == "DequantizeLinear"]
    assert len(quantise) == 2 and len(dequantise) == 4
    assert sorted(float(weights[n.input[1]]) for n in quantise) == [pytest.approx(4 / 127), pytest.approx(5 / 127)]
    for node in (*quantise, *dequantise):
        assert not weights[node.input[2]].any(), "symmetric: no zero point"
        assert weights[node.input[1]].dtype == np.float32
    channels = [n for n in dequantise if n.input[0] in weights]
    assert sorted(len(weights[n.input[1]]) for n in channels) == [64, 128]
    assert all(weights[n.input[0]].dtype == np.int8 for n in channels)
    assert not any(t == "fc1.weight" or t == "fc1.weight_f16" for t in weights), "no float copy is left"
    assert types(data)["h"] == TensorProto.FLOAT16, "the side around is half"
    x = np.random.default_rng(3).standard_normal((8, 64)).astype(np.float32)
    want, got = run(block(), {"x": x})["y"], run(data, {"x": x})["y"]
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_a_range_too_small_clips() -> None:
    x = np.random.default_rng(3).standard_normal((8, 64)).astype(np.float32)
    want = run(block(), {"x": x})["y"]
    good = run(to_int8(Graph(block()), {"blocks.0.mlp.fc1": 4.0}, None), {"x": x})["y"]
    bad = run(to_int8(Graph(block()), {"blocks.0.mlp.fc1": 0.05}, None), {"x": x})["y"]
    assert np.abs(bad - want).max() > 20 * np.abs(good - want).max()


@pytest.mark.parametrize("graph", GRAPHS)
def test_attention_norms_and_residuals_are_never_quantised(tiny_export: Path, graph: str) -> None:
    path = tiny_export / "onnx" / f"{graph}.onnx"
    ranges = {layer.name: 1.0 for layer in quantisable(Graph(path, graph))}
    found = onnx.load_from_string(to_int8(Graph(path, graph), ranges, kept_by_rule(Graph(path, graph))))
    made = {o: n for n in found.graph.node for o in n.output}

    def source(tensor: str) -> str:
        node = made.get(tensor)
        while node is not None and node.op_type == "Cast":
            node = made.get(node.input[0])
        return node.op_type if node is not None else ""

    behind = [
        n for n in found.graph.node if any(source(t) == "DequantizeLinear" for t in n.input) and n.op_type != "Cast"
    ]
    assert {n.op_type for n in behind} <= {"MatMul", "Gemm", "Conv"}
    assert len(behind) == len(ranges)
    for node in behind:  # both the data and the weight, or neither
        assert source(node.input[0]) == source(node.input[1]) == "DequantizeLinear"


def test_layers_of_one_tensor_share_their_qdq() -> None:
    nodes = [helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"], name=f"/m{i}/MatMul") for i in range(3)]
    nodes.append(helper.make_node("MatMul", ["y2", "w0"], ["z"], name="/again/MatMul"))
    weights = {f"w{i}": np.eye(64, dtype=np.float32) * (i + 1) for i in range(3)}
    shapes = {n: [4, 64] for n in ("y0", "y1", "z")}
    made = model(nodes, weights, {"x": [4, 64]}, shapes)
    found = onnx.load_from_string(to_int8(Graph(made), {"m0": 3.0, "m1": 3.0, "m2": 3.0}, None))
    kinds = [n.op_type for n in found.graph.node]
    assert kinds.count("QuantizeLinear") == 2  # x once; y2 for the second use of w0
    assert kinds.count("DequantizeLinear") == 2 + 3  # and each weight once


@pytest.mark.parametrize(
    ("ranges", "text"),
    [
        ({"blocks.0.attn.qkv": 1.0}, "has no layer blocks.0.attn.qkv to quantise"),
        ({"blocks.0.mlp.fc1": 0.0}, "range 0.0 of layer blocks.0.mlp.fc1"),
        ({"blocks.0.mlp.fc1": float("inf")}, "range inf"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(ranges: dict[str, float], text: str) -> None:
    with pytest.raises(EdgeAdError, match=text):
        to_int8(Graph(block()), ranges, None)
