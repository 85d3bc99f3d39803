"""`edge-ad calibrate int8` and `calibrate fp16`: what they write and say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from edge_ad.bundle import Bundle
from edge_ad.cli.main import main
from edge_ad.export.precision.assemble import twin_bundle
from edge_ad.runtime.detector import Detector


@pytest.fixture
def bundle(tiny_export: Path, tmp_path: Path) -> Bundle:
    shutil.copytree(tiny_export, tmp_path / "b")
    return Bundle.open(tmp_path / "b")


def run(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(a) for a in args], standalone_mode=False)
    return done.exit_code, done.output + (str(done.exception) if done.exception else "")


def test_the_command_says_what_is_wrong_in_one_line(bundle: Bundle, tmp_path: Path) -> None:
    for args, text in (
        ((), "no frames to calibrate on; expected one of --data DIR, --camera URI, --table FILE"),
        (("--data", "d", "--camera", "c"), "--data and --camera; expected one of"),
        (("--table", tmp_path / "none.txt"), "none.txt does not exist"),
        (("--data", tmp_path / "nowhere"), "nowhere does not exist"),
    ):
        code, told = run("calibrate", "int8", bundle.path, *args)
        lines = [line for line in told.splitlines() if line.startswith("error:")]
        assert code == 1 and len(lines) == 1 and text in lines[0], told
        assert "Traceback" not in told


def test_the_command_writes_picture_table_and_json(bundle: Bundle) -> None:
    uri = "synthetic:hex_nut?frames=3"
    options = ("--camera", uri, "--class-name", "hex_nut", "--max-drop", 90, "--jobs", 1, "--json")
    code, told = run("calibrate", "int8", bundle.path, *options)
    assert code == 0, told
    document = json.loads(told[told.index("{\n") :])
    assert document["frames"] == 3 and document["sensitivity"]["blocks"] and document["bytes"]["rgb"]["int8"] > 0
    assert cv2.imread(document["picture"]) is not None
    code, told = run("calibrate", "int8", bundle.path, "--table", bundle.path / "precision/int8.txt", "--jobs", 1)
    assert code == 0 and "written into" in told, told
    code, told = run("run", bundle.path, "--camera", uri, "--precision", "int8")
    assert code == 1 and "no threshold" in told and "--precision int8" in told


def test_fp16_of_a_variant(varied_export: Path, tmp_path: Path) -> None:
    shutil.copytree(varied_export, tmp_path / "v")
    code, told = run("calibrate", "fp16", tmp_path / "v", "--variant", "light", "--jobs", 1)
    assert code == 0 and "--precision fp16 --variant light" in told, told
    with twin_bundle(Bundle.open(tmp_path / "v").as_variant("light")) as twin:
        assert twin.variant == "light"
        assert type(Detector(twin, threads=1, need_threshold=False).sessions["score"]).__name__ == "OnnxSession"
