"""``edge-ad run`` as a pipeline: modes, drops, an error in a stage, and an end by signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli.main import main
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.detector import Detector
from tests.disk import copy_with_limits, write_parts


@pytest.fixture(scope="module")
def box(tiny_export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle with limits and a data set."""
    folder = tmp_path_factory.mktemp("box")
    return copy_with_limits(tiny_export, folder / "bundle", 5.0), write_parts(folder / "data", good=4)


def run(box: tuple[Path, Path], *more: str, query: str = "split=test", code: int = 0) -> tuple[str, str]:
    bundle, data = box
    done = CliRunner().invoke(main, ["run", str(bundle), "--camera", f"folder:{data}?{query}", *more])
    assert done.exit_code == code, done.stderr
    return done.stdout, done.stderr


def test_both_modes_give_the_same_lines_in_the_same_order(box: tuple[Path, Path]) -> None:
    def lines(*more: str) -> list[dict[str, object]]:
        found = [json.loads(line) for line in run(box, *more)[0].splitlines()]
        for line in found:
            del line["times_ms"]
        return found

    one = lines("--latency", "--threads", "1")
    assert [line["sequence"] for line in one] == list(range(12))
    assert lines("--throughput", "--workers", "3") == one


def test_the_summary_counts_what_was_dropped(box: tuple[Path, Path]) -> None:
    whole = json.loads(run(box, "--json")[0])
    assert (whole["frames"], whole["dropped"], whole["mode"]) == (12, 0, "latency")
    assert whole["point"] == {"variant": "base", "stride": 1, "precision": "fp32", "backend": "onnxruntime"}
    out, said = run(box, "--json", "--drop", "--throughput")
    some = json.loads(out)
    assert some["frames"] + some["dropped"] == 12 and some["mode"] == "throughput"
    assert f"{some['dropped']} dropped for newer ones" in said and "dropped" not in run(box)[1]


def test_an_error_in_a_stage_is_one_line(box: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Detector, prepared: object) -> object:
        raise EdgeAdError("the engine stopped", "an answer", "restart the box")

    monkeypatch.setattr(Detector, "encode", fail)
    out, said = run(box, "--throughput", code=1)
    assert out == "" and said.splitlines() == ["error: the engine stopped; expected an answer; restart the box"]


def test_a_score_stride_needs_thresholds_of_its_own(box: tuple[Path, Path]) -> None:
    _, said = run(box, "--score-stride", "2", code=1)
    assert "no threshold" in said and "--score-stride 2" in said
    _, said = run(box, "--score-stride", "0", code=1)
    assert said == "error: score stride 0; expected a whole number from 1 to 16\n"
    _, said = run(box, "--variant", "light", code=1)
    assert "has no variant 'light'; expected one of base" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_delivers_what_is_in_work_and_prints_the_summary(
    box: tuple[Path, Path], number: int, tmp_path: Path
) -> None:
    bundle, data = box
    command = [sys.executable, "-m", "edge_ad.cli.main", "run", str(bundle), "--throughput", "--no-drop"]
    with (tmp_path / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [*command, "--camera", f"folder:{data}?loop=1&fps=50"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(number)
    rest = process.stdout.read()  # not communicate(): it would pass over what readline() has buffered
    process.wait(60)
    said = (tmp_path / "stderr").read_text()
    lines = [json.loads(line) for line in [first, *rest.splitlines()]]
    assert process.returncode == 0, said
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    assert f"{len(lines)} frames in" in said and "Traceback" not in said
