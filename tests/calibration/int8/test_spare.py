"""Layers at which most of INT8's error arises stay in FP16, and no more of them than it takes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8 import spare as module
from edge_ad.calibration.int8.calibrate import calibrate_int8, items_of_frames
from edge_ad.calibration.int8.probe import Probe
from edge_ad.calibration.int8.spare import GRAPH_ERROR, MAP_ERROR, Alone, Costs, costliest
from edge_ad.errors import EdgeAdError
from tests.calibration.int8.parts import frames

errors = st.floats(0, 0.2)


drawn = st.tuples(st.sampled_from(["rgb", "score"]), errors, errors, st.integers(1, 1 << 20))


@given(st.lists(drawn, min_size=1), errors, errors, errors)
def test_the_costliest_a_weight_of_the_bound_that_is_missed_most(
    found: list[tuple[str, float, float, int]], whole: float, rgb: float, score: float
) -> None:
    layers = {(g, str(i)): Costs(m, {g: e}) for i, (g, m, e, _) in enumerate(found)}
    weights = {(g, str(i)): n for i, (g, _, _, n) in enumerate(found)}
    left = costliest(layers, Costs(whole, {"rgb": rgb, "score": score}), weights)
    assert 1 <= len(left) <= len(layers) and len(set(left)) == len(left)
    over = {"": whole / MAP_ERROR, "rgb": rgb / GRAPH_ERROR, "score": score / GRAPH_ERROR}
    which = max(over, key=lambda g: over[g])

    def square(layer: tuple[str, str]) -> float:
        c = layers[layer]
        return (c.graphs.get(which, 0.0) if which else c.map) ** 2

    def dear(layer: tuple[str, str]) -> float:
        return square(layer) / weights[layer]

    assert min(map(dear, left)) >= max((dear(layer) for layer in layers if layer not in left), default=0.0)
    if len(left) > 1:  # one fewer would not have been enough
        rest = sum(square(layer) for layer in layers if layer not in left[:-1])
        assert over[which] * rest > sum(map(square, layers)) * (1 - 1e-9)


def test_a_graph_alone_is_held_against_float32(bundle: Bundle) -> None:
    probe = Probe(bundle, items_of_frames(frames(1), bundle), jobs=1)
    alone = Alone(probe, probe.known)
    for graph, model in probe.models.items():
        assert alone.error(graph, probe.replay.session(graph, model)) < 1e-3


def test_bounds_are_met_and_the_table_says_how(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    every = calibrate_int8(bundle, frames(4), "frames", every_layer=True)
    assert every.spared is None and all(r.mode == "int8" for r in every.table.rows)
    monkeypatch.setattr(module, "MAP_ERROR", 1.0)
    monkeypatch.setattr(module, "GRAPH_ERROR", 1.0)
    loose = calibrate_int8(bundle, frames(4), "frames").spared
    assert loose is not None and loose.left == () and loose.before == loose.after
    monkeypatch.setattr(module, "MAP_ERROR", 0.5 * loose.before.map)
    monkeypatch.setattr(module, "GRAPH_ERROR", 0.5 * loose.before.worst_graph)
    report = calibrate_int8(bundle, frames(4), "frames")
    found = report.spared
    assert found is not None and found.before.over() > 1 >= found.after.over()
    assert {(r.graph, r.layer) for r in report.table.rows if r.mode == "fp16"} == set(found.left) != set()
    assert set(found.layers) == {(r.graph, r.layer) for r in every.table.rows}
    assert "every layer" in report.text() and f"without these {len(found.left)}" in report.text()
    document = json.loads(json.dumps(report.to_json()))["spared"]
    assert sum(x["left_in_fp16"] for x in document["layers"]) == len(found.left)


def test_ranges_with_which_no_layer_can_be_int8_are_refused(bundle: Bundle) -> None:
    before = (bundle.path / "manifest.json").read_bytes()
    with pytest.raises(EdgeAdError, match="no layer can run in INT8.*--method.*--every-layer"):
        calibrate_int8(bundle, frames(2), "frames", method="percentile", percentile=1)
    assert (bundle.path / "manifest.json").read_bytes() == before
