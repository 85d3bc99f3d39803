"""The levels of ``tokens.onnx`` against the literal model, and the runtime's division by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_ad.export.bundle import trace_graphs
from edge_ad.export.graphs import ScoreGraph
from edge_ad.export.levels import LevelledTokenGraph, token_graph
from edge_ad.models.levels import Levels
from edge_ad.runtime.scoring import LEVELS, levels_of, over_levels, score_pixels
from edge_ad.runtime.scoring_fast import Taps

from .test_graphs import Case, TorchScore, close, make


def _levelled(kind: str, grid: int, ratio: int, groups: int, share: float, seed: int, by_class: bool = False) -> Case:
    case = make(kind, grid, ratio, groups, 2, share, seed, by_class=by_class)
    preset = replace(case.detector.preset, fusion=replace(case.detector.preset.fusion, level="predicted"))
    torch.manual_seed(seed)
    case.detector.preset = preset
    case.detector.levels = Levels(preset).eval().requires_grad_(False)
    for level in (case.detector.levels.of_rgb, case.detector.levels.of_3d):
        level.limits.copy_(torch.tensor([-0.4, 0.4]))
    return case


@pytest.mark.parametrize(("kind", "by_class"), [("gacm", False), ("cfm", False), ("gacm", True)])
@pytest.mark.parametrize("rows", [None, 5])
def test_relative_distances_equal_the_literal_model(kind: str, by_class: bool, rows: int | None) -> None:
    case = _levelled(kind, 7, 8, 40, 0.7, 3, by_class)
    graph, names = token_graph(case.detector)
    assert isinstance(graph, LevelledTokenGraph) and names[2:] == list(LEVELS)
    which = torch.tensor([case.class_index])
    with torch.no_grad():
        tables = {n: t.numpy() for n, t in zip(names, graph(case.rgb, case.points, which), strict=True)}
    some = None if rows is None else np.arange(0, int(case.valid.sum()), rows)
    found = score_pixels(
        TorchScore(ScoreGraph(case.detector)), tables["rgb_table"], tables["point_table"], case.valid, case.at,
        case.class_index, some, levels=levels_of(tables),
    )  # fmt: skip
    expected = case.reference()
    close(found, expected if some is None else {k: v[some] for k, v in expected.items()})


def test_a_model_without_levels_has_two_tables() -> None:
    case = make("gacm", 4, 4, 12, 2, 1.0, 1)
    _, names = token_graph(case.detector)
    assert names == ["rgb_table", "point_table"]
    d = {"rgb": np.ones(3, np.float32), "3d": np.ones(3, np.float32)}
    assert levels_of({"rgb_table": d["rgb"]}) is None
    none = Taps(np.zeros((3, 1), np.int64), np.zeros((3, 1), np.float32))
    assert over_levels(d, None, (none, none)) is d


def test_the_traced_graph_carries_the_levels() -> None:
    case = _levelled("gacm", 4, 4, 12, 1.0, 1)
    assert [o.name for o in trace_graphs(case.detector)["tokens"].outputs][2:] == list(LEVELS)
