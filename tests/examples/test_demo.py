"""The demo from end to end, small; its page; and that every command written in the documents exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_ad.cli.main import COMMANDS, main
from edge_ad.presets import load_preset
from tests.shared import SHARED, needs_shared

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"])
ARC = SHARED / "data/real/arc_tote"


class Links(HTMLParser):
    """Every file that a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith("#")]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples/demo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


def check_page(folder: Path) -> str:
    """Every link of the page leads to a file beside it, none to the network."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    links = Links(text).found
    assert links
    for link in links:
        assert "://" not in link
        assert (folder / link).is_file(), link
    return text


@pytest.mark.slow
def test_quick_demo_of_synthetic_parts_leaves_a_page_and_can_be_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        done = demo("--quick", "--only", "synthetic", "--classes", "gear", "--out", str(tmp_path))
        assert done.returncode == 0, done.stderr[-3000:]
    text = check_page(tmp_path)
    lines = (tmp_path / "results/results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6  # the second run did not add to the first one's
    measured = json.loads((tmp_path / "json/evaluate.json").read_text(encoding="utf-8"))
    assert f"{100 * measured['mean']['i_auroc']:.1f}" in text
    assert (tmp_path / "bundle/manifest.json").is_file()
    assert (tmp_path / "sheet.png").is_file()


@needs_shared
@pytest.mark.slow
def test_quick_demo_of_real_recordings_reports_every_view(tmp_path: Path) -> None:
    done = demo("--quick", "--only", "arc", "--source", str(ARC), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    check_page(tmp_path)
    views = json.loads((tmp_path / "json/arc.json").read_text(encoding="utf-8"))["views"]
    assert [v["view"] for v in views] == ["tote_0", "tote_1", "tote_2"]
    for view in views:
        # Found by the rule for lost depth even by a model of 40 steps: no view with objects passes as normal.
        assert view["decision"] != "normal"
        assert view["no_depth_flagged"] > 0.5
        assert view["objects_with_lost_depth"] == view["drawn_objects"]
        assert view["empty_decision"] == "normal"


def test_demo_without_recordings_says_so(tmp_path: Path) -> None:
    done = demo("--only", "arc", "--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "demo"))
    assert done.returncode == 0, done.stderr
    assert "no recordings in" in done.stdout
    assert "no recordings in" in (tmp_path / "demo/index.html").read_text(encoding="utf-8")


@needs_shared
def test_frame_difference_baseline_and_lost_depth_need_no_model() -> None:
    """The geometry of the example, without a fit: expected depth from the empty frame, lost where the objects are."""
    from edge_ad.data.dataset import open_dataset
    from edge_ad.runtime.geometry import frame_xyz
    from edge_ad.runtime.preprocess import Preprocessor, Scene

    preset = load_preset("compact-scene")
    root = ARC
    data = open_dataset(root)
    by_name = {i.name: i for i in data.items}
    empty, filled = by_name["view0_empty"].frame(), by_name["view0_objects"].frame()
    import cv2

    roi = cv2.imread(str(root / "view0_roi.png"), cv2.IMREAD_GRAYSCALE) > 0
    scene = Scene(roi, frame_xyz(empty)[..., 2] > 0)
    pre = Preprocessor(preset.geometry, preset.rgb.mean, preset.rgb.std, {"tote": scene})
    clean, lost = pre(empty, "tote").samples[0], pre(filled, "tote").samples[0]
    assert not clean.lost.any()
    share = lost.lost.sum() / (lost.lost | lost.valid).sum()
    assert share > preset.limits.lost_share


def commands(path: Path) -> list[list[str]]:
    """Words of every ``edge-ad`` command line in a document's code blocks and spans of code."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(edge-ad [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line) for line in lines if re.match(r"(\.venv/bin/)?edge-ad( |$)", line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_commands_in_documents_exist(path: Path) -> None:
    for words in commands(path):
        name = [w for w in words[1:3] if re.fullmatch(r"[a-z][a-z0-9-]*", w) and not w.startswith("-")]
        if not name:
            continue
        assert name[0] in COMMANDS, words
        sub = name if name[0] == "calibrate" else name[:1]
        shown = CliRunner().invoke(main, [*sub, "--help"], standalone_mode=False)
        assert shown.exit_code == 0, words
        known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.output))
        for option in words:
            if option.startswith("--"):
                assert option.split("=")[0] in known, f"{path.name}: {shlex.join(words)}: {option}"


def test_readme_has_commands_and_its_links_lead_somewhere() -> None:
    assert len(commands(ROOT / "README.md")) >= 8
    for path in DOCUMENTS:
        prose = re.sub(r"```.*?```|`[^`\n]+`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_compact_scene_extends_compact() -> None:
    scene, compact = load_preset("compact-scene"), load_preset("compact")
    assert (scene.geometry.crop, scene.geometry.background, scene.geometry.pose) == ("roi", "none", "fixed")
    assert scene.points.groups == compact.points.groups
    assert set(scene.rgb.taps) < set(compact.rgb.taps)  # shallower: sharper maps
    assert scene.limits.lost_share < compact.limits.lost_share
