"""The whole line on small frames: export, calibrate, evaluate (a bundle and a model directory), run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_ad.cli.main import main
from tests.disk import write_parts


def call(*arguments: object) -> tuple[Any, str]:
    """The JSON document on stdout and what stderr says."""
    done = CliRunner().invoke(main, [*(str(a) for a in arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("line") / "data", validation=4)


def test_export_calibrate_evaluate_run(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    exported, _ = call("export", tiny_model, bundle, "--data", data, "--golden", 1)
    assert set(exported["graphs"]) == {"rgb", "points", "tokens", "score"}
    assert exported["map_difference"] <= exported["tolerance"]

    calibrated, _ = call("calibrate", "thresholds", bundle, "--data", data, "--false-reject-rate", 0.2, "--jobs", 1)
    assert set(calibrated["classes"]) == {"hex_nut", "cookie"}
    assert calibrated["classes"]["cookie"]["n_parts"] == 4

    sheet = tmp_path / "sheet.png"
    common = ("--data", data, "--jobs", 1, "--no-baseline")
    from_bundle, _ = call("evaluate", bundle, *common, "--sheet", sheet, "--ablation")
    assert set(from_bundle["ablation_i_auroc"]) == {"full", "colour only", "depth only"}
    assert sheet.stat().st_size > 1000
    from_model, said = call("evaluate", tiny_model, *common)
    assert "tracing the graphs" in said
    for name in ("hex_nut", "cookie"):
        assert 0 <= from_bundle["classes"][name]["i_auroc"] <= 1
        assert from_model["classes"][name] == from_bundle["classes"][name]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "sheet.png"]

    results = tmp_path / "results"
    ran, _ = call("run", bundle, "--camera", f"folder:{data}?split=test", "--output", f"folder:{results}")
    assert ran["frames"] == 8 and sum(ran["decisions"].values()) == 8
    lines = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    assert {line["class"] for line in lines} == {"hex_nut", "cookie"}
    for line in lines:
        assert (line["decision"] == "anomalous") == (line["score"] > line["threshold"])
        assert all((results / path).is_file() for path in line["files"].values())
