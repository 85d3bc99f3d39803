"""``edge-ad build-engine``: what cannot be built here is said before the bundle is changed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli.build_engine import command


def test_a_missing_package_is_said_before_fp16_graphs_are_made(
    tiny_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_export, bundle)
    before = (bundle / "manifest.json").read_bytes()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = CliRunner().invoke(command, [str(bundle), "--backend", "tensorrt", "--precision", "fp16"])
    assert done.exit_code == 1
    assert "the package 'tensorrt' is not installed" in done.output and "FP16 graphs" not in done.output
    assert (bundle / "manifest.json").read_bytes() == before and not (bundle / "onnx/fp16").exists()
