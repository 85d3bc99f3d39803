"""A candidate is measured on the runtime's own path, though only what it changes is computed again."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ad.bundle import Bundle
from edge_ad.calibration.int8.calibrate import items_of_frames, parts_to_measure
from edge_ad.calibration.int8.observe import make_table, observe
from edge_ad.calibration.int8.probe import Candidate, Probe
from edge_ad.calibration.int8.sensitivity import pick
from edge_ad.calibration.int8.table import CalibrationTable
from edge_ad.errors import EdgeAdError
from edge_ad.evaluation.report import evaluate_scores
from edge_ad.evaluation.runner import score_items, to_record
from edge_ad.export.precision.assemble import add_int8, base_graphs, digests
from edge_ad.export.precision.graph import Graph
from edge_ad.export.precision.int8 import to_int8
from edge_ad.export.precision.replay import Replay
from edge_ad.frame import Frame
from tests.calibration.int8.parts import frames, labelled


def table_of(bundle: Bundle) -> CalibrationTable:
    replay, models = Replay(bundle), base_graphs(bundle)
    return make_table(models, observe(replay, models, replay.prepare(frames(2))), "minmax", digests(bundle))


def test_float32_and_int8_are_what_the_evaluation_finds(bundle: Bundle) -> None:
    items = parts_to_measure(bundle, labelled(), 6)
    probe = Probe(bundle, items, jobs=2, stride=1)
    table = table_of(bundle)
    ranges = {g: table.ranges(g) for g in bundle.manifest.graphs}
    written = add_int8(bundle, {g: to_int8(Graph(m, g), ranges[g], None) for g, m in probe.models.items()}, "table")
    for precision, found in (("fp32", probe.base()), ("int8", probe.outcome(Candidate(ranges)))):
        wanted = evaluate_scores([to_record(p) for p in score_items(written, items, precision=precision, jobs=1)]).mean
        assert found.i_auroc == pytest.approx(wanted["i_auroc"]) and found.parts == len(items)
        assert found.aupro_30 == pytest.approx(wanted["aupro_30"], abs=1e-6)
    assert found.map_error > 0


@pytest.mark.parametrize("graph", ["rgb", "points", "tokens", "score"])
def test_what_a_graph_does_not_influence_is_kept(bundle: Bundle, graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of_frames(frames(1), bundle)
    probe, table = Probe(bundle, items, jobs=1), table_of(bundle)
    alone = Candidate({graph: table.ranges(graph)})
    ran: list[str] = []
    for name, session in probe.replay.detector.sessions.items():
        if name in ("rgb", "points"):
            real = session.run
            monkeypatch.setattr(session, "run", lambda given, n=name, r=real: (ran.append(n), r(given))[1])
    found = probe.outcome(alone)
    assert ran == [] and (graph == "score" or found.map_error > 0), "the tiny score graph has text layers alone"
    again = Probe(bundle, items, jobs=3).outcome(alone)
    assert again == found, "threads change nothing"


def test_pictures_are_not_kept(bundle: Bundle) -> None:
    probe = Probe(bundle, items_of_frames(frames(1), bundle), jobs=1)
    for ready in probe._ready:
        assert ready.frame.depth is None and ready.frame.colour.strides == (0, 0, 0)
        assert ready.cut.xyz.strides == (0, 0, 0) and ready.parts[0].part.sample.xyz.strides == (0, 0, 0)


def test_parts_that_cannot_be_scored(bundle: Bundle) -> None:
    empty = Frame(np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint16), intrinsics=frames(1)[0][0].intrinsics)
    items = items_of_frames([(empty, "cookie"), *frames(1)], bundle)
    assert len(Probe(bundle, items, jobs=1).items) == 2
    with pytest.raises(EdgeAdError, match="none of the 1 parts could be scored"):
        Probe(bundle, items[:1], jobs=1)


def test_parts_are_drawn_alike_from_classes_and_sides(bundle: Bundle) -> None:
    items = [i for i in labelled().items if i.split == "test"]
    some = [items[i] for i in pick(items, 4)]
    assert [i.defect for i in some].count("good") == 2 and len(some) == 4
    assert pick(items, 100) == list(range(len(items)))
    one_side = [i for i in items if i.defect == "good"]
    assert len(one_side) == 3 and pick(one_side, 2) == [0, 1], "one side alone fills its class"
