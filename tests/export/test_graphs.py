"""The restructured graphs against the literal reference, each term on its own (METHOD section 7).

The mappers are fitted, so that good pixels lie where they lie in a real model: distances of at most 0.05. There a form
such as ``sqrt(2 - 2 cos)`` loses what the tolerance asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.bundle import TensorSpec
from edge_ad.export.bundle import trace_graphs
from edge_ad.export.graphs import ScoreGraph
from edge_ad.export.reference import spread
from edge_ad.export.token_graph import TokenGraph
from edge_ad.export.turned import column_widths
from edge_ad.runtime.scoring import score_pixels
from tests.export.cases import SIZES, TOLERANCE, Case, TorchScore, close, make


@settings(max_examples=30)
@given(**SIZES, chunk=st.sampled_from([1, 37, 4096]), by_class=st.booleans())
def test_tables_and_rows_equal_the_literal_model(
    kind: str, grid: int, ratio: int, groups: int, classes: int, share: float, chunk: int, seed: int, by_class: bool
) -> None:
    case = make(kind, grid, ratio, groups, classes, share, seed, by_class=by_class)
    tokens = TokenGraph(case.detector).eval()
    with torch.no_grad():
        rgb_table, point_table = tokens(case.rgb, case.points, torch.tensor([case.class_index]))
    widths = column_widths(case.detector)
    assert (rgb_table.shape[1], point_table.shape[1]) == (sum(widths[0]), sum(widths[1]))
    found = score_pixels(
        TorchScore(ScoreGraph(case.detector)),
        rgb_table.numpy(),
        point_table.numpy(),
        case.valid,
        case.at,
        case.class_index,
        chunk=max(chunk, int(case.valid.sum()) // 20),
    )
    close(found, case.reference())


@pytest.mark.parametrize("kind", ["gacm", "cfm"])
def test_good_pixels_of_these_cases_lie_where_good_parts_lie(kind: str) -> None:
    """Else the tests here would not see what float32 loses near 0."""
    for name, values in make(kind, 7, 8, 40, 3, 1.0, 11).reference().items():
        assert 0 < float(np.median(values)) <= 0.05, (name, float(np.median(values)))
        assert float(values.max()) > 0.05, name


def test_the_tolerance_tells_the_cosine_form_apart() -> None:
    """``sqrt(2 - 2 cos)`` fails here: the tolerance is worth something."""
    case = make("gacm", 4, 4, 20, 2, 1.0, 5)
    expected = case.reference()
    d = case.detector
    index, weight = spread(case.at, case.valid)
    rgb, points = case.rgb @ d.rgb_weight.T + d.rgb_offset, case.points @ d.point_weight.T + d.point_offset
    with torch.no_grad():
        f = d.pixel_features(rgb, points, index, weight)
        cosine = F.cosine_similarity(f.rgb, f.points_to_rgb, dim=-1)
    form = (2 - 2 * cosine).clamp_min(0).sqrt().numpy()
    assert np.abs(form - expected["rgb"]).max() > TOLERANCE * expected["rgb"].max()


@pytest.fixture(scope="module", params=[("gacm", False), ("cfm", False), ("gacm", True)])
def traced(request: pytest.FixtureRequest) -> tuple[Case, dict[str, ort.InferenceSession]]:
    case = make(request.param[0], 4, 8, 30, 3, 0.6, 8, by_class=request.param[1])
    graphs = trace_graphs(case.detector)
    return case, {k: ort.InferenceSession(g.onnx, providers=["CPUExecutionProvider"]) for k, g in graphs.items()}


class OnnxScore:
    def __init__(self, session: ort.InferenceSession) -> None:
        self.session = session
        self.inputs = tuple(TensorSpec(i.name, ("rows",), "float32") for i in session.get_inputs())
        self.outputs = tuple(TensorSpec(o.name, ("rows",), "float32") for o in session.get_outputs())

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip([o.name for o in self.outputs], self.session.run(None, dict(inputs)), strict=True))


@pytest.mark.parametrize("chunk", [1, 100, 5000])
def test_onnx_equals_the_literal_model(traced: tuple[Case, dict[str, ort.InferenceSession]], chunk: int) -> None:
    case, sessions = traced
    feed = {"rgb_tokens": case.rgb.numpy(), "point_tokens": case.points.numpy()}
    if case.detector.conditions is not None:
        feed["class_index"] = np.array([case.class_index])
    tables = sessions["tokens"].run(None, feed)
    found = score_pixels(OnnxScore(sessions["score"]), *tables, case.valid, case.at, case.class_index, chunk=chunk)
    close(found, case.reference())


def test_onnx_encoders_equal_torch(traced: tuple[Case, dict[str, ort.InferenceSession]]) -> None:
    case, sessions = traced
    p = case.detector.preset
    size = p.geometry.size
    image = torch.randn(1, 3, size, size)
    groups, centers = 0.1 * torch.randn(1, p.points.groups, 4, 3), torch.randn(1, p.points.groups, 3)
    with torch.no_grad():
        rgb, points = case.detector.raw_tokens(image[0], groups[0], centers[0])
    (found_rgb,) = sessions["rgb"].run(None, {"image": image.numpy()})
    (found_points,) = sessions["points"].run(None, {"groups": groups.numpy(), "centers": centers.numpy()})
    np.testing.assert_allclose(found_rgb, rgb.numpy(), atol=2e-5)
    np.testing.assert_allclose(found_points, points.numpy(), atol=2e-5)


def test_the_text_columns_do_not_depend_on_the_class() -> None:
    """``auto`` looks for the class in the tables of any."""
    case = make("gacm", 4, 8, 30, 3, 0.6, 8, by_class=True)
    tokens = TokenGraph(case.detector).eval()
    with torch.no_grad():
        one, other = (tokens(case.rgb, case.points, torch.tensor([c])) for c in (0, 2))
    for side, (a, b) in enumerate(zip(one, other)):
        own = column_widths(case.detector)[side][-1]
        torch.testing.assert_close(a[:, -own:], b[:, -own:], rtol=0, atol=0)
        assert (a[:, :-own] - b[:, :-own]).abs().max() > 0.1
