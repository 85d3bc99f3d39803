"""Tuning: candidates, the choice, honest refusals, and the whole command on a small bundle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.bundle import Bundle, OperatingPoint
from edge_ad.calibration import timing
from edge_ad.calibration import tune as module
from edge_ad.calibration.accuracy import Accuracy
from edge_ad.calibration.timing import Timed, Timing, in_own_process, time_afresh, time_point
from edge_ad.calibration.tune import Row, candidates, check_calibration_parts, choose
from edge_ad.cli.main import main
from edge_ad.data.dataset import open_dataset
from edge_ad.errors import EdgeAdError
from tests.disk import write_parts
from tests.training.tiny import tiny_dataset


def row(variant: str, ms: float, mb: float, auroc: float, reason: str = "") -> Row:
    time = Timed(ms, ms, 1500 / ms, mb)
    return Row(OperatingPoint(variant), time, Accuracy(auroc, auroc, 1.0, None, 10), reason)


def whose_process(job: Timing) -> Timed:
    return Timed(float(os.getpid()), float(job.frames), 1.0, 0.0)


def dies(job: Timing) -> Timed:
    os._exit(3)


def test_the_most_accurate_that_meets_the_target_is_chosen_and_ties_go_to_the_faster() -> None:
    rows = [row("a", 50, 9, 0.99), row("b", 30, 9, 0.97), row("c", 20, 9, 0.9698), row("d", 10, 9, 0.8)]
    assert choose(rows, 60).point.variant == "a"
    assert choose(rows, 40).point.variant == "c"  # as good as b, and faster
    assert choose(rows, 15).point.variant == "d"
    with pytest.raises(
        EdgeAdError, match=r"no point meets 5 ms; the fastest \(d, .*\) takes 10.0 ms and reaches 150.0"
    ):
        choose(rows, 5)
    assert choose(rows, target_fps=40).point.variant == "c"
    assert choose(rows, 60, 100).point.variant == "d"
    with pytest.raises(EdgeAdError, match="no point meets 60 ms and 200 frames/s"):
        choose(rows, 60, 200)
    rows[3] = row("d", 10, 9, 0.8, reason="refused")
    with pytest.raises(EdgeAdError, match="no point meets 15 ms"):
        choose(rows, 15)


def test_a_lower_precision_that_saves_no_time_is_not_chosen() -> None:
    def at(precision: str, ms: float, auroc: float, stride: int = 1) -> Row:
        return replace(row("base", ms, 9, auroc), point=OperatingPoint("base", stride, precision, "openvino"))

    rows = [at("fp32", 30, 0.97), at("bf16", 35, 0.98), at("fp32", 20, 0.96, 2), at("bf16", 25, 0.99, 2)]
    assert str(choose(rows, 60).point) == str(rows[0].point)
    rows[1] = at("bf16", 25, 0.98)
    assert choose(rows, 60).point.precision == "bf16"
    assert choose([at("int8", 35, 0.98), rows[2]], 60).point.precision == "int8"  # no float32 beside it to be held to


def test_the_front_holds_what_nothing_beats() -> None:
    rows = [row("a", 50, 9, 0.99), row("b", 60, 9, 0.98), row("c", 60, 5, 0.98), row("d", 10, 9, 0.8, "refused")]
    assert [r.pareto for r in module.mark_pareto(rows)] == [True, False, True, False]


def test_accuracy_without_defects_is_the_agreement_of_the_maps() -> None:
    assert Accuracy(None, None, 0.97, None, 4).value == 0.97
    assert Accuracy(0.9, None, 0.97, None, 4).value == 0.9
    assert Accuracy(0.9, 0.8, 0.97, None, 4).value == pytest.approx(0.85)


def test_candidates_are_what_the_backends_take(varied_export: Path) -> None:
    bundle = Bundle.open(varied_export)
    found = candidates(bundle, bundle.variants, (1, 2), ("fp32", "bf16", "fp16"), ("onnxruntime", "openvino"))
    assert found[0] == OperatingPoint() and len({str(p) for p in found}) == len(found) == 12
    assert {p.backend for p in found if p.precision == "bf16"} == {"openvino"}
    assert not [p for p in found if p.precision == "fp16"]
    with pytest.raises(EdgeAdError, match="no variant 'x'"):
        candidates(bundle, ("x",), (1,), ("fp32",), ("onnxruntime",))


def test_each_timing_has_a_process_of_its_own(tmp_path: Path) -> None:
    job = Timing(tmp_path, OperatingPoint(), (), 7)
    found = in_own_process(whose_process, job)
    assert found is not None and found.p50_ms != os.getpid() and found.p90_ms == 7
    with pytest.raises(EdgeAdError, match="the process died"):
        in_own_process(dies, job)


def test_the_process_that_asked_the_golden_frames_is_not_the_one_that_is_timed(
    varied_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    shutil.copytree(varied_export, tmp_path / "b")
    items = tuple(open_dataset(write_parts(tmp_path / "data", validation=1)).items[:1])
    job = Timing(tmp_path / "b", OperatingPoint("light", 2, "fp32", "openvino"), items, 3)
    processes = []

    def here(function: Callable[[Timing], Timed | None], job: Timing) -> Timed | None:
        processes.append(job.gated)
        return function(job)

    monkeypatch.setattr(timing, "in_own_process", here)
    assert time_afresh(job).per_second > 0 and processes == [False, True]
    assert time_afresh(job).p50_ms > 0 and processes == [False, True, False]


def test_thresholds_that_could_not_be_set_are_refused_before_the_work(varied_export: Path) -> None:
    bundle = Bundle.open(varied_export)
    with pytest.raises(EdgeAdError, match="no good parts of class 'hex_nut' in the split 'holdout'"):
        check_calibration_parts(bundle, tiny_dataset(), "holdout", 0.05)
    with pytest.raises(EdgeAdError, match=r"false-reject rate 5 % from 2 held-out good parts"):
        check_calibration_parts(bundle, tiny_dataset(), "validation", 0.05)


@pytest.fixture
def line(varied_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A bundle and a data set with defects; timings run in this process, with made-up latencies of the variants."""
    shutil.copytree(varied_export, tmp_path / "bundle")
    data = write_parts(tmp_path / "data", validation=4)

    def here(job: Timing) -> Timed:
        found = time_point(job)
        assert found is not None and 0 < found.p50_ms <= found.p90_ms < 60_000 and found.peak_mb > 10
        assert 1 / 60 < found.per_second < 10_000
        slow = 100.0 if job.point.variant == "base" else 10.0
        return replace(found, p50_ms=slow / job.point.stride, p90_ms=slow, per_second=1000 * job.point.stride / slow)

    monkeypatch.setattr(module, "time_afresh", here)
    return tmp_path / "bundle", data


def tune(bundle: Path, data: Path, *more: object, code: int = 0) -> tuple[str, str]:
    fixed = ["--false-reject-rate", 0.2, "--frames", 3, "--jobs", 1, "--backends", "onnxruntime"]
    done = CliRunner().invoke(main, [str(a) for a in ("tune", bundle, "--data", data, *fixed, *more)])
    assert done.exit_code == code, done.stderr
    return done.stdout, done.stderr


def test_the_command_writes_the_point_and_its_thresholds_and_run_uses_them(line: tuple[Path, Path]) -> None:
    bundle, data = line
    out, said = tune(bundle, data, "--target-ms", 8, "--strides", "1,2", "--json")
    document = json.loads(out)
    assert len(document["rows"]) == 4 and document["chosen"]["variant"] == "light"
    assert document["chosen"]["stride"] == 2 and "I-AUROC" in said
    for found in document["rows"]:
        assert 0 <= found["i_auroc"] <= 1 and 0 <= found["aupro_30"] <= 1
    exact = document["rows"][0]
    assert exact["map_correlation"] == 1.0 and exact["exact"]["i_auroc"] == exact["i_auroc"]
    opened = Bundle.open(bundle)
    assert opened.point is not None and (opened.point.variant, opened.point.stride) == ("light", 2)
    limit = opened.as_variant("light", 2).threshold("cookie", "fp32")
    assert limit is not None and limit.n_parts == 4
    assert opened.threshold("cookie", "fp32") is None

    run = ["run", str(bundle), "--camera", f"folder:{data}?split=test", "--json"]
    done = CliRunner().invoke(main, run)
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["point"] == {"variant": "light", "stride": 2, "precision": "fp32", "backend": "onnxruntime"}
    assert summary["frames"] == 8 and summary["dropped"] == 0
    assert "chosen by edge-ad tune" in done.stderr and "its price: I-AUROC" in done.stderr
    whole = CliRunner().invoke(main, [*run, "--throughput", "--workers", "2"])
    assert whole.exit_code == 0 and json.loads(whole.stdout)["decisions"] == summary["decisions"]
    # Another point has no threshold, and says how to set one.
    other = CliRunner().invoke(main, [*run, "--score-stride", "3"])
    assert other.exit_code == 1 and "--variant 'light' --score-stride 3" in other.stderr


def test_a_target_out_of_reach_writes_nothing_and_shows_the_table(line: tuple[Path, Path]) -> None:
    bundle, data = line
    before = (bundle / "manifest.json").read_bytes()
    _, said = tune(bundle, data, "--target-ms", 0.001, "--strides", 2, "--limit", 1, "--variants", "light", code=1)
    assert "no point meets 0.001 ms" in said.strip().splitlines()[-1] and "AUPRO@30" in said
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("strides", ["", "a", "0", "1,99"])
def test_strides_that_make_no_sense_are_one_line(line: tuple[Path, Path], strides: str) -> None:
    _, said = tune(*line, "--target-ms", 5, "--strides", strides, code=1)
    assert said.startswith("error:") and "stride" in said


def test_frames_a_second_are_a_target_of_their_own(line: tuple[Path, Path]) -> None:
    bundle, data = line
    fixed = ("--strides", "1,2", "--variants", "base", "--limit", 1)
    out, _ = tune(bundle, data, "--target-fps", 15, *fixed, "--json")
    document = json.loads(out)
    assert document["chosen"]["stride"] == 2 and document["chosen"]["per_second"] == 20
    assert document["target_fps"] == 15 and "target_ms" not in document
    _, said = tune(bundle, data, "--target-fps", 25, *fixed, code=1)
    assert "no point meets 25 frames/s" in said
    _, said = tune(bundle, data, *fixed, code=1)
    assert said == "error: no target; expected --target-ms, --target-fps, or both; for instance --target-ms 40\n"


def test_data_without_defects_ranks_by_agreement(line: tuple[Path, Path]) -> None:
    bundle, data = line
    shutil.rmtree(data)
    write_parts(data, validation=4)
    for folder in data.glob("*/test"):
        shutil.rmtree(folder)
    assert not open_dataset(data).select(None, "test", None)
    out, _ = tune(bundle, data, "--target-ms", 1000, "--strides", "1,3", "--variants", "base", "--json")
    rows = json.loads(out)["rows"]
    assert "i_auroc" not in rows[0] and rows[0]["map_correlation"] == 1.0 and rows[1]["map_correlation"] < 1.0
    assert json.loads(out)["chosen"]["stride"] == 1
