"""The profile: counts that can be checked by hand, memory that is real, and the command."""

from __future__ import annotations

import json
import math
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.cli.main import main
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.profiling import profile
from edge_ad.runtime.profiling.floor import Work, count_work, project
from edge_ad.runtime.profiling.machine import Peak, measure_peak
from edge_ad.runtime.profiling.memory import peak_mb, process_age_s, resident_mb
from tests.bundles import tiny_bundle
from tests.training.tiny import make_frame


def test_counts_of_a_graph_are_those_of_its_layers() -> None:
    from edge_ad.export.counts import count
    from edge_ad.export.trace import trace

    linear = trace(torch.nn.Linear(64, 32), [torch.randn(5, 64)], ["x"], ["y"], rows=["x", "y"])
    found = count(linear.onnx, rows=10)
    assert found["gflop"] * 1e9 in (10 * 64 * 32 * 2 + 10 * 32, 10 * 64 * 32 * 2)  # with or without the bias apart
    assert found["weights_mb"] * 1e6 == pytest.approx((64 * 32 + 32) * 4)
    assert found["least_mb"] * 1e6 == pytest.approx((64 * 32 + 32 + 10 * 64 + 10 * 32) * 4)
    conv = trace(torch.nn.Conv2d(3, 8, 3, bias=False), [torch.randn(1, 3, 10, 12)], ["x"], ["y"])
    assert count(conv.onnx)["gflop"] * 1e9 == pytest.approx(2 * 8 * 8 * 10 * 27)
    with pytest.raises(ValueError, match="free dimension"):
        count(linear.onnx)


def test_work_of_the_score_graph_grows_with_the_pixels(tiny_export: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_export)
    few, many = count_work(bundle, 100), count_work(bundle, 1000)
    assert set(few) == {"rgb encoder", "point encoder", "tokens", "score"}
    assert many["score"].gflop == pytest.approx(10 * few["score"].gflop)
    assert many["rgb encoder"] == few["rgb encoder"] and few["score"].least_mb <= few["score"].traffic_mb
    assert count_work(tiny_bundle(tmp_path / "old"), 100) == {}  # exported before the counts were


def test_floors_and_projections_follow_their_formulas() -> None:
    peak = Peak("x", 1, gflops=100.0, copy_gb_s=10.0)
    work = {"a": Work(1.0, 4.0, 20.0, 40.0)}
    assert work["a"].floor_ms(peak) == pytest.approx(10) and work["a"].traffic_ms(peak) == pytest.approx(4)
    rows = project({"a": Work(156.0, 0, 0, 0)})
    agx = next(r for r in rows if r["name"].startswith("AGX"))
    assert agx["ms_best"] == pytest.approx(156 / 42.6 / 0.35) and agx["ms_worst"] == pytest.approx(156 / 42.6 / 0.25)
    bound = project({"a": Work(0.0, 0, 204.8 * 2, 0)})[0]
    assert bound["ms_best"] == bound["ms_worst"] == pytest.approx(1.0)
    assert project({}) == []


def test_memory_and_peak_are_measured_here() -> None:
    before = resident_mb()
    block = np.ones(80_000_000 // 8)
    assert resident_mb() - before > 40 and block[0] == 1
    assert peak_mb() >= before + 40
    assert 0 < process_age_s() < 1e6
    peak = measure_peak(1, seconds=0.05)  # wide bounds: a busy machine is no fault of the measurement
    assert 0.01 < peak.gflops < 5000 and 0.01 < peak.copy_gb_s < 2000 and peak.processor


def test_stages_add_up_and_the_warm_up_stands_apart(tiny_export: Path) -> None:
    frames = [make_frame(c, i) for i in range(2) for c in ("cookie", "hex_nut")]
    point = OperatingPoint(stride=2)
    found = profile(Bundle.open(tiny_export), point, cycle(frames), frames=6, warm_up=2, threads=1)
    assert found.frames == 6 and len(found.warm_up_ms) == 2
    total = found.stages["total"]
    assert total["p50"] <= total["p90"] <= total["p99"]
    parts = sum(s["mean"] for n, s in found.stages.items() if n != "total")
    assert 0.5 * total["mean"] < parts <= total["mean"] * 1.01
    assert list(found.stages)[-1] == "total" and {"geometry", "rgb encoder", "score"} <= set(found.stages)
    assert 0 < found.first_mask_s < found.since_start_s
    assert found.memory["peak"] >= found.memory["steady"] > found.memory["weights"] > 0
    whole = profile(Bundle.open(tiny_export), OperatingPoint(), frames, frames=2, warm_up=1, threads=1)
    assert found.work["score"].gflop == pytest.approx(whole.work["score"].gflop / 4, rel=0.3)
    document = json.loads(json.dumps(found.to_json()))
    assert document["floor_ms"] == pytest.approx(sum(w["floor_ms"] for w in document["work"].values()))


def test_frames_without_a_part_cannot_be_timed(tiny_export: Path) -> None:
    with pytest.raises(EdgeAdError, match="no frame was left to time after 1 of warm-up"):
        profile(Bundle.open(tiny_export), OperatingPoint(), [make_frame("cookie", -1)] * 3, frames=2, warm_up=1)


def test_the_command_writes_a_chart_and_compares(tiny_export: Path, tmp_path: Path) -> None:
    def call(*more: object, code: int = 0) -> tuple[str, str]:
        arguments = ["profile", str(tiny_export), "--frames", "2", "--warm-up", "1", "--threads", "1"]
        done = CliRunner().invoke(main, [*arguments, *(str(m) for m in more)])
        assert done.exit_code == code, done.stderr
        return done.stdout, done.stderr

    out, _ = call("--json")
    document = json.loads(out)
    assert document["frames"] == 2 and not math.isnan(document["stages_ms"]["total"]["p50"])
    assert document["projection"]["assumptions"][0].startswith("a projection, not a measurement")
    (tmp_path / "then.json").write_text(out)
    text, said = call("--compare", tmp_path / "then.json", "--png", tmp_path / "p.png", "--score-stride", 2)
    assert "now/then" in text and "projection for boards" in text and "floor" in text
    assert "its price: not measured on this bundle" in said
    picture = cv2.imread(str(tmp_path / "p.png"))
    assert picture is not None and picture.shape[1] == 960 and (picture < 100).any()
    once, _ = call("--frames", 1, "--warm-up", 0, "--json")
    assert json.loads(once)["stages_ms"]["total"]["p50"] == json.loads(once)["stages_ms"]["total"]["p99"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"frames": 3}', "is no profile; expected a file of edge-ad profile --json"),
        ("[]", "is no profile"),
        ('{"point": 1, "machine": 2}', "is no profile"),
        ("then", "is not JSON"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_profile_is_refused_before_the_work(
    tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str
) -> None:
    monkeypatch.setattr("edge_ad.runtime.profiling.profile", lambda *_, **__: pytest.fail("work was done"))
    if text is not None:
        (tmp_path / "then.json").write_text(text)
    done = CliRunner().invoke(main, ["profile", str(tiny_export), "--compare", str(tmp_path / "then.json")])
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
