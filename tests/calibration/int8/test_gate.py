"""The golden gate in INT8: what calibration measured passes with room, a block that went missing does not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import calibrate_int8
from edge_ad.calibration.int8.table import read_table
from edge_ad.engines.compare import GRAPHS, load_sessions
from edge_ad.engines.cost import read_cost
from edge_ad.engines.examine import COST_FACTOR, examine
from edge_ad.engines.tolerances import TOLERANCES
from edge_ad.export.precision.assemble import base_graphs
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.roles import group_of, quantisable
from tests.calibration.int8.parts import frames
from tests.engines.wrong_graphs import Served

BLOCKS = (("rgb", "_blocks.1"), ("points", "blocks.0"), ("points", "blocks.1"))


def without(bundle: Bundle, graph: str, block: str) -> onnx.ModelProto:
    """The INT8 graph with the weights of one block zeroed."""
    model = onnx.load(bundle.graph_path(graph, "int8"))
    names = {f"{n.node.name}_w8" for n in quantisable(Graph(base_graphs(bundle)[graph], graph)) if n.group == block}
    gone = 0
    for tensor in model.graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.int8), tensor.name))
            gone += 1
    assert gone
    return model


@pytest.mark.parametrize("every_layer", [False, True])
def test_int8_passes_with_room_and_a_zeroed_block_does_not(bundle: Bundle, every_layer: bool) -> None:
    written = calibrate_int8(bundle, frames(4), "frames", every_layer=every_layer).bundle
    reference = load_sessions(written, "onnxruntime", "fp32", 1)
    served = load_sessions(written, "onnxruntime", "int8", 1)
    good = examine(written, served, "tensorrt", "int8", reference)
    assert not [f for f in good.faults if f.startswith("graph")], good.faults
    cost, table = read_cost(written, "int8"), TOLERANCES["int8"].graph_error
    assert set(cost) == set(GRAPHS)
    for graph in GRAPHS:
        assert good.graph_errors[graph] == pytest.approx(cost[graph], rel=0.02, abs=1e-6)
        assert good.allowed_errors[graph] == pytest.approx(
            min(table, max(COST_FACTOR["int8"] * cost[graph], 1e-3)), rel=1e-6
        )
    inside = {
        (r.graph, group_of(r.layer)) for r in read_table(written.path / "precision/int8.txt").rows if r.mode == "int8"
    }
    blocks = [b for b in BLOCKS if b in inside]
    assert blocks
    for graph, block in blocks:
        bad = {**served, graph: Served(without(written, graph, block), served[graph])}
        report = examine(written, bad, "tensorrt", "int8", reference)
        assert report.graph_errors[graph] > 1.5 * report.allowed_errors[graph], (graph, block)
        assert any(f.startswith(f"graph {graph} differs") for f in report.faults)
