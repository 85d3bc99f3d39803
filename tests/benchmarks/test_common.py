"""What a benchmark keeps: its conditions, its figures, and of every path only the last name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.common import keep, last_names
from edge_ad.evaluation.tables import Table


def test_only_the_last_name_of_an_absolute_path_is_kept() -> None:
    found = {
        "target": "/a/b/bundle",
        "command": "edge-ad evaluate /a/b/bundle --data=/a/parts --camera 'folder:/a/c' --ablation",
        "nested": [{"n": 1.5, "paths": ("/x/y.onnx", "relative/y.onnx")}, None, True],
        "figures": "12 ms / frame, 3/4, https://site/page",
    }
    assert last_names(found) == {
        "target": "bundle",
        "command": "edge-ad evaluate bundle --data=parts --camera 'folder:c' --ablation",
        "nested": [{"n": 1.5, "paths": ["y.onnx", "relative/y.onnx"]}, None, True],
        "figures": "12 ms / frame, 3/4, https://site/page",
    }


def test_kept_results_name_no_folder(tmp_path: Path) -> None:
    args = argparse.Namespace(bundle=tmp_path / "bundle", frames=3, write=True)
    keep(tmp_path, "some", args, {"result": {"target": str(tmp_path / "bundle"), "ms": 1.25}}, [Table("T", ("a",), ())])
    kept = json.loads((tmp_path / "some.json").read_text(encoding="utf-8"))
    text = (tmp_path / "some.md").read_text(encoding="utf-8")
    assert kept["result"] == {"target": "bundle", "ms": 1.25}
    assert kept["setup"]["options"] == "--bundle bundle --frames 3 --write True"
    assert text.startswith("**T**") and "options --bundle bundle --frames 3 --write True." in text
    assert str(tmp_path) not in json.dumps(kept) + text
