"""Writing a bundle: whole or not at all, and never over what is no bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_ad.bundle import Bundle, ClassEntry, add_files
from edge_ad.errors import EdgeAdError
from tests.bundles import THRESHOLD, mlp, tiny_bundle
from tests.killed import run_until_killed


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": (ClassEntry("a/b", ""),)}, "name 'a/b'"),
        ({"extra_files": {"../x": b"x"}}, "unsafe file name"),
        ({"extra_files": {"manifest.json": b"x"}}, "neither the manifest"),
        ({"extra_files": {"x": Path("nowhere")}}, "does not exist"),
        ({"geometry": {"points_scale_m": float("inf")}}, "is inf"),
    ],
)
def test_writing_refuses_what_opening_would(tmp_path: Path, changes: dict, text: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(EdgeAdError, match=text):
        tiny_bundle(tmp_path / "b", **changes)
    assert list(tmp_path.iterdir()) == []


def test_replacing_replaces_bundles_alone(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match="exists already"):
        tiny_bundle(bundle.path)
    (bundle.path / "engines").mkdir()
    tiny_bundle(bundle.path, name="new", replace=True)
    assert Bundle.open(bundle.path).manifest.name == "new" and not (bundle.path / "engines").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / "precious").write_text("x")
    with pytest.raises(EdgeAdError, match="is not a bundle"):
        tiny_bundle(home, replace=True)
    assert (home / "precious").read_text() == "x"


def test_files_are_added_with_their_hash_and_engines_stay(bundle: Bundle) -> None:
    (bundle.path / "engines/k").mkdir(parents=True)
    (bundle.path / "engines/k/rgb.plan").write_bytes(b"plan")
    bundle.with_thresholds({"cap": THRESHOLD}, "fp32")
    graphs = {f"onnx/fp16/{g}.onnx": mlp(2, (3, 2))[0] for g in bundle.manifest.graphs}
    added = add_files(bundle, graphs)
    opened = Bundle.open(bundle.path)
    assert opened.manifest == added.manifest and opened.precisions == ("fp32", "fp16")
    assert opened.threshold("cap", "fp32") == THRESHOLD
    assert opened.graph_path("rgb", "fp16").is_file() and opened.graph_path("rgb").is_file()
    assert (bundle.path / "engines/k/rgb.plan").read_bytes() == b"plan"
    with pytest.raises(EdgeAdError, match="unsafe"):
        add_files(bundle, {"../x": b""})


def test_a_kill_while_writing_leaves_no_bundle(tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        import edge_ad.bundle.writer as writer
        from tests.bundles import tiny_bundle
        writer.write_json = lambda path, value: kill()
        tiny_bundle(Path(sys.argv[1]))
    """
    run_until_killed(script, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    tiny_bundle(tmp_path / "b")
    Bundle.open(tmp_path / "b")
