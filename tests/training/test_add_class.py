"""One class more: what stays bit for bit, what is learned, and that rehearsal keeps the old classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edge_ad.bundle import open_bundle
from edge_ad.cli.main import main
from edge_ad.data.dataset import Dataset, open_dataset
from edge_ad.engines import build_engines, check, find_engine, read_sidecar, trt
from edge_ad.errors import EdgeAdError
from edge_ad.runtime.detector import Detector
from edge_ad.training.add_class import AddOptions, add_class, write_added
from edge_ad.training.model_dir import LoadedModel, load_model
from edge_ad.training.rehearsal import FILE, read_rehearsal
from tests.disk import write_camera, write_recording
from tests.training.tiny import make_frame, tiny_dataset


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> LoadedModel:
    shutil.copytree(tiny_model, tmp_path / "model")
    return load_model(tmp_path / "model")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of recordings: parts of a class that nobody has seen."""
    root = tmp_path_factory.mktemp("new")
    write_camera(root)
    for i in range(4):
        write_recording(root, f"{i:03d}", make_frame("washer", i))
    return root


@pytest.fixture
def dataset(parts: Path) -> Dataset:
    return open_dataset(parts, class_name="washer")


def test_what_stays_and_what_is_learned(model: LoadedModel, dataset: Dataset, tmp_path: Path) -> None:
    added = add_class(model, dataset, "washer", tmp_path / "cache", AddOptions(steps=60))
    old, new = model.detector, added.detector
    assert [c.name for c in added.classes] == [*model.class_names, "washer"]
    assert torch.equal(new.anchors[:-1], old.anchors) and len(new.anchors) == 3
    for name in ("rgb_weight", "rgb_offset", "point_weight", "point_offset", "balance"):
        assert torch.equal(getattr(new, name), getattr(old, name))
    assert new.rgb_encoder is old.rgb_encoder and new.point_encoder is old.point_encoder
    assert added.new_after < added.new_before
    write_added(model.path, added, model)
    again = load_model(model.path)
    assert again.class_names == (*model.class_names, "washer")
    assert again.provenance["added"][0]["class"] == "washer"
    assert set(read_rehearsal(model.path, again.preset, again.class_names).classes.tolist()) == {0, 1, 2}


def test_rehearsal_keeps_the_old_classes(model: LoadedModel, dataset: Dataset, tmp_path: Path) -> None:
    kept = add_class(model, dataset, "washer", tmp_path / "cache", AddOptions(steps=150))
    lost = add_class(model, dataset, "washer", tmp_path / "cache", AddOptions(steps=150, rehearse=False))
    assert kept.old_after <= kept.old_before * 1.05
    assert kept.old_after < 0.95 * lost.old_after
    assert kept.new_after < kept.new_before


def test_the_same_seed_gives_the_same_bits(model: LoadedModel, dataset: Dataset, tmp_path: Path) -> None:
    a, b = (add_class(model, dataset, "washer", tmp_path / "cache", AddOptions(steps=5)) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.detector.mappers.parameters(), b.detector.mappers.parameters()))


def test_what_is_refused(model: LoadedModel, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(EdgeAdError, match="knows the class 'cookie' already"):
        add_class(model, dataset, "cookie", tmp_path / "cache")
    with pytest.raises(EdgeAdError, match="class 'bolt' has no good training parts; expected one of washer"):
        add_class(model, dataset, "bolt", tmp_path / "cache")
    with pytest.raises(EdgeAdError, match="steps is 0; expected at least 1"):
        AddOptions(steps=0)
    empty = tiny_dataset({"washer": (2, 0)}, broken=2)
    with pytest.raises(EdgeAdError, match="no training frame has a usable part"):
        add_class(model, empty, "washer", tmp_path / "cache")
    (model.path / FILE).unlink()
    with pytest.raises(EdgeAdError, match="keeps no features of its classes.*fit all classes together"):
        add_class(model, dataset, "washer", tmp_path / "cache")


def test_rehearsal_of_another_model(model: LoadedModel) -> None:
    with pytest.raises(EdgeAdError, match="is not this model's"):
        read_rehearsal(model.path, model.preset, (*model.class_names, "third"))


def test_command_keeps_the_encoders_engines(
    tiny_model: Path, tiny_export: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ad.engines import build

    monkeypatch.setattr(build, "add_kernels", lambda *args, **kwargs: None)
    rtx = pytest.importorskip("tensorrt_rtx")
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copytree(tiny_export, tmp_path / "bundle")
    before = open_bundle(tmp_path / "bundle")
    build_engines(before, "tensorrt-rtx", compute_capability=("8.6",))
    folder = before.path / "engines/tensorrt-rtx-fp32-sm86"

    def plans() -> dict[str, bytes]:
        return {graph: (folder / record.file).read_bytes() for graph, record in read_sidecar(folder).plans.items()}

    old_plans = plans()
    old_anchors = before.anchors
    args = ["add-class", str(tmp_path / "model"), str(before.path), "--data", str(parts), "--class", "washer"]
    shown = CliRunner().invoke(main, [*args, "--steps", "40", "--jobs", "1", "--json"])
    assert shown.exit_code == 0, shown.output
    report = json.loads(shown.stdout)
    assert report["classes"] == ["hex_nut", "cookie", "washer"]
    assert report["engines"] == ["engine tensorrt-rtx-fp32-sm86: built tokens, score; kept rgb, points"]

    after = open_bundle(before.path)
    for graph in ("rgb", "points"):
        assert after.manifest.files[after.graph_file(graph)] == before.manifest.files[before.graph_file(graph)]
        assert plans()[graph] == old_plans[graph]
    for graph in ("tokens", "score"):
        assert after.manifest.files[after.graph_file(graph)] != before.manifest.files[before.graph_file(graph)]
        assert plans()[graph] != old_plans[graph]
    found = find_engine(after, "tensorrt-rtx", "fp32", (8, 6), trt.version(rtx))
    check(*found, after, version=trt.version(rtx), capability=(8, 6))
    assert read_sidecar(folder).plans["rgb"].source_sha256 == after.manifest.files[after.graph_file("rgb")]

    anchors = after.anchors
    assert anchors is not None and old_anchors is not None and len(anchors) == 3
    np.testing.assert_array_equal(anchors[:2], old_anchors)
    assert {g.class_name for g in after.golden()} == {"hex_nut", "cookie", "washer"}
    detector = Detector(after, need_threshold=False)
    assert np.isfinite(detector(make_frame("washer", 9)).score)

    again = CliRunner().invoke(main, args)
    assert again.exit_code == 1 and "Traceback" not in again.output
    assert "error: " in again.stderr and "knows the class 'washer' already" in again.stderr

    shutil.rmtree(tmp_path / "model")
    shutil.copytree(tiny_model, tmp_path / "model")
    args[-1] = "ring"
    other = CliRunner().invoke(main, args)
    assert other.exit_code == 1
    assert "knows hex_nut, cookie, washer; expected the model's classes: hex_nut, cookie" in other.stderr
    assert open_bundle(before.path).class_names == ("hex_nut", "cookie", "washer")
