"""FP16 by casting: what runs in which type, and that inputs, outputs and values stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_ad.errors import EdgeAdError
from edge_ad.export.precision.fp16 import cast_fp16, half_nodes
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import group_of, kept_by_rule, layers, levels, quantisable, residuals, source
from tests.export.precision.models import block, model, run, types

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT
GRAPHS = ("rgb", "points", "tokens", "score")


def test_linear_runs_in_half_norms_in_full_and_the_ends_stay_float32() -> None:
    data = cast_fp16(Graph(block()), kept_by_rule(Graph(block())))
    found = types(data)
    assert found["x"] == found["y"] == FULL
    assert found["n"] == FULL and found["h"] == HALF and found["m"] == HALF
    assert found["fc1.weight_f16"] == HALF and "fc1.weight" not in found
    assert found["norm.weight"] == FULL
    x = np.random.default_rng(1).standard_normal((8, 64)).astype(np.float32)
    want = run(block(), {"x": x})["y"]
    assert np.abs(run(data, {"x": x})["y"] - want).max() < 4e-3 * np.abs(want).max()


@pytest.mark.parametrize("graph", GRAPHS)
def test_exported_graphs_keep_their_tensors_and_put_the_right_things_in_half(tiny_export: Path, graph: str) -> None:
    path = tiny_export / "onnx" / f"{graph}.onnx"
    before = onnx.load(path)
    data = cast_fp16(Graph(path, graph), kept_by_rule(Graph(path, graph)))
    after = onnx.load_from_string(data)
    assert list(map(str, after.graph.input)) == list(map(str, before.graph.input))
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    found = types(data)
    for node in after.graph.node:
        kinds = {found[t] for t in node.output}
        if node.op_type in ("LayerNormalization", "ReduceL2"):
            assert kinds == {FULL}, node.name
        if node.op_type in ("Softmax", "Conv"):
            assert kinds == {HALF}, node.name
        if any("_offset" in t for t in node.input):
            assert kinds == {FULL}, f"{node.name}: the standardisation stays float32"
        if node.op_type == "Exp":
            assert kinds == {FULL}, f"{node.name}: levels stay float32"
    half = sum(t.data_type == HALF for t in after.graph.initializer)
    assert half


def test_no_cast_stands_between_two_nodes_of_one_type(tiny_export: Path) -> None:
    path = tiny_export / "onnx" / "points.onnx"
    data = onnx.load_from_string(cast_fp16(Graph(path), kept_by_rule(Graph(path))))
    made = {o: n for n in data.graph.node for o in n.output}
    for node in data.graph.node:
        if node.op_type == "Cast" and node.input[0] in made:
            assert made[node.input[0]].op_type != "Cast", f"{node.name} undoes a cast"


def test_a_constant_that_half_cannot_hold_keeps_its_node_in_full() -> None:
    nodes = [helper.make_node("Add", ["x", "eps"], ["y"], name="add")]
    tiny = model(nodes, {"eps": np.array(1e-7, np.float32)}, {"x": [2]}, {"y": [2]})
    assert kept_by_rule(Graph(tiny)) == {"add": "constant outside FP16"}
    big = model(nodes, {"eps": np.array(1e6, np.float32)}, {"x": [2]}, {"y": [2]})
    assert kept_by_rule(Graph(big)) == {"add": "constant outside FP16"}
    usual = model(nodes, {"eps": np.array(1e-3, np.float32)}, {"x": [2]}, {"y": [2]})
    assert kept_by_rule(Graph(usual)) == {}


def test_what_makes_only_a_level_is_found_back_to_where_it_branches_off() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="shared"),
        helper.make_node("Neg", ["a"], ["y"], name="main"),
        helper.make_node("Abs", ["a"], ["b"], name="head"),
        helper.make_node("Exp", ["b"], ["rgb_level"], name="exp"),
    ]
    graph = Graph(model(nodes, {}, {"x": [4]}, {"y": [4], "rgb_level": [4]}))
    assert levels(graph) == {"head", "exp"} and kept_by_rule(graph) == {"head": "level", "exp": "level"}


def test_of_a_level_only_the_last_layer_stays_in_full() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="bend"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], name="last"),
        helper.make_node("Exp", ["c"], ["rgb_level"], name="exp"),
    ]
    weights = {"w1": np.full((4, 3), 0.5, np.float32), "w2": np.full((3, 1), 0.5, np.float32)}
    graph = Graph(model(nodes, weights, {"x": [2, 4]}, {"rgb_level": [2, 1]}))
    assert levels(graph) == {"first", "bend", "last", "exp"}
    assert kept_by_rule(graph) == {"last": "level", "exp": "level"}


def test_the_residual_stream_that_layer_norms_read_stays_in_full() -> None:
    def norm(i: int, read: str) -> list[onnx.NodeProto]:
        return [helper.make_node("LayerNormalization", [read, "g"], [f"n{i}"], name=f"norm{i}")]

    nodes = [
        *norm(0, "x"),
        helper.make_node("MatMul", ["n0", "w"], ["u0"], name="update0"),
        helper.make_node("Add", ["x", "u0"], ["x1"], name="sum0"),
        *norm(1, "x1"),
        helper.make_node("MatMul", ["n1", "w"], ["p1"], name="update1"),
        helper.make_node("Add", ["p1", "b"], ["u1"], name="bias"),
        helper.make_node("Add", ["x1", "u1"], ["x2"], name="sum1"),
        *norm(2, "x2"),
        helper.make_node("Add", ["n2", "n1"], ["z"], name="elsewhere"),
        helper.make_node("Add", ["z", "n0"], ["y"], name="elsewhere_too"),
    ]
    weights = {n: np.full(s, 0.5, np.float32) for n, s in (("w", (4, 4)), ("b", (4,)), ("g", (4,)))}
    graph = Graph(model(nodes, weights, {"x": [2, 4]}, {"y": [2, 4]}))
    assert {n for n, why in kept_by_rule(graph).items() if why == "residual"} == {"sum0", "sum1"}


def test_every_sum_of_the_point_encoder_s_stream_is_found(tiny_export: Path) -> None:
    graph = Graph(tiny_export / "onnx" / "points.onnx")
    found = residuals(graph)
    norms = [n for n in graph.nodes if n.op_type == "LayerNormalization"]
    read = {source(graph, n.input[0]) for n in norms}
    assert found == {n.name for n in graph.nodes if n.op_type == "Add" and n.output[0] in read} and found


def test_keeping_everything_changes_nothing(tiny_export: Path) -> None:
    graph = Graph(tiny_export / "onnx" / "tokens.onnx")
    assert half_nodes(graph, {n.name for n in graph.nodes}) == set()
    data = cast_fp16(graph, {n.name for n in graph.nodes})
    assert not any(n.op_type == "Cast" for n in onnx.load_from_string(data).graph.node)


def test_layers_have_the_names_of_the_torch_model(tiny_export: Path) -> None:
    points = layers(Graph(tiny_export / "onnx" / "points.onnx"))
    names = [layer.name for layer in points]
    assert {"blocks.0.attn.qkv", "blocks.1.mlp.fc2", "pos_embed.2"} <= set(names)
    weights = {layer.weight for layer in points}
    assert len(set(names)) == len(weights), "a name a weight, however often it is used"


def test_the_standardisation_is_no_layer_and_stays_in_full(tiny_export: Path) -> None:
    path = tiny_export / "onnx" / "tokens.onnx"
    graph = Graph(path)
    kept = kept_by_rule(graph)
    assert set(kept.values()) <= {"standardisation", "level"}
    # One product a modality, by weights that are the class's own where the model has conditions.
    full = [n for n in graph.nodes if kept.get(n.name) == "standardisation"]
    assert sum(n.op_type in ("Gemm", "MatMul") for n in full) == 2
    assert not {n.name for n in full} & half_nodes(graph, kept)
    names = {layer.name.rpartition("tables.")[2] for layer in layers(Graph(path))}
    assert {"rgb_layers.0", "gate", "point_text"} <= names
    assert not any("offset" in n for n in names)


def test_depthwise_and_first_convolutions_stay_out_of_int8(tiny_export: Path) -> None:
    chosen = {layer.name for layer in quantisable(Graph(tiny_export / "onnx" / "rgb.onnx"))}
    assert chosen and not any("depthwise" in n or "stem" in n for n in chosen)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("blocks.3.attn.qkv", "blocks.3"),
        ("_blocks.10._expand_conv", "_blocks.10"),
        ("groups.first", "groups"),
        ("point_rest.0", "point_rest"),
        ("gate:2", "gate"),
        ("_conv_stem", "_conv_stem"),
    ],
)
def test_blocks(name: str, group: str) -> None:
    assert group_of(name) == group


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(EdgeAdError, match="rgb is not an ONNX model|rgb: types cannot be inferred"):
        Graph(b"\x00not onnx", "rgb")
