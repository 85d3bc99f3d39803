"""The whole line with variants, at the sizes that ship: synth, fit --variants, export, tune, run, profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge_ad.cli.main import main

VARIANTS = "light: groups=256, points-stride=3; short: layers=4, group-size=16, hidden=128"


def call(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(main, [*(str(a) for a in arguments), "--json"])
    assert done.exit_code == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.mark.slow  # about two minutes: three models are traced and held against their references
def test_variants_from_parts_to_decisions(tmp_path: Path) -> None:
    parts, model, bundle = tmp_path / "parts", tmp_path / "model", tmp_path / "bundle"
    call("synth", "--out", parts, "--parts", "small", "--classes", "gear")
    fixed = ("--epochs", 4, "--min-steps", 60, "--variants", VARIANTS)
    assert set(call("fit", "--data", parts, "--out", model, *fixed)["variants"]) == {"light", "short"}
    assert call("export", model, bundle, "--data", parts)["variants"] == ["base", "light", "short"]

    rate = ("--false-reject-rate", 0.2)
    tuned = ("--strides", "1,4", "--frames", 4, "--backends", "onnxruntime", "--jobs", 1)
    found = call("tune", bundle, "--data", parts, "--target-fps", 0.01, *tuned, *rate)
    rows = {(r["variant"], r["stride"]): r for r in found["rows"]}
    assert len(rows) == 6 and all(r["per_second"] > 0 and 0 <= r["aupro_30"] <= 1 for r in rows.values())
    assert rows["base", 1]["map_correlation"] == 1.0
    assert rows["base", 4]["map_correlation"] > 0.99  # the stride alone hardly changes the map
    for stride in (1, 4):  # fewer groups, or fewer blocks and hidden units, are less work
        assert rows["short", stride]["p50_ms"] < rows["base", stride]["p50_ms"]

    test = f"folder:{parts}?split=test"
    summary = call("run", bundle, "--camera", test)
    chosen = found["chosen"]
    assert {k: summary["point"][k] for k in ("variant", "stride")} == {k: chosen[k] for k in ("variant", "stride")}
    others = ("--variant", "short", "--score-stride", 2)
    said = call("run", bundle, "--camera", test, *others, code=1)
    assert "no threshold for class gear" in said and "edge-ad calibrate thresholds" in said
    call("calibrate", "thresholds", bundle, "--data", parts, *others, *rate)
    both = [call("run", bundle, "--camera", test, *others, mode) for mode in ("--latency", "--throughput")]
    assert both[0]["decisions"] == both[1]["decisions"] and both[0]["frames"] == both[1]["frames"] > 0
    profiled = call("profile", bundle, "--variant", "short", "--frames", 2, "--warm-up", 1)
    assert profiled["point"]["variant"] == "short" and profiled["floor_ms"] > 0
