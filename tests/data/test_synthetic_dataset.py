"""The synthetic data set on disk: layout, independence of jobs and classes, nothing half written."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from edge_ad.cli.synth import command
from edge_ad.data.dataset import open_dataset
from edge_ad.data.synthetic import CLASSES, INTRINSICS, SIZES, synthesize, write_dataset
from edge_ad.data.synthetic import dataset as writer
from edge_ad.errors import EdgeAdError


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "parts"
    write_dataset(out, classes=("bottle_cap", "gear"), size="small", seed=5, jobs=1)
    return out


def test_layout(root):
    counts = SIZES["small"]
    listing = json.loads((root / "parts.json").read_text())
    assert listing["classes"] == ["bottle_cap", "gear"] and listing["seed"] == 5
    assert len(listing["items"]) == 2 * sum(counts.values())
    for name in ("bottle_cap", "gear"):
        for folder, count in (("train", "train"), ("validation", "validation"), ("test", "good")):
            for kind, suffix in (("rgb", "png"), ("xyz", "tiff")):
                found = sorted(p.name for p in (root / name / folder / "good" / kind).iterdir())
                assert found == [f"{i:03d}.{suffix}" for i in range(counts[count])]
    for item in listing["items"]:
        folder, number = item["name"].rsplit("/", 1)
        colour = cv2.imread(str(root / folder / "rgb" / f"{number}.png"))
        xyz = tifffile.imread(root / folder / "xyz" / f"{number}.tiff")
        assert colour.shape == xyz.shape == (INTRINSICS.height, INTRINSICS.width, 3) and xyz.dtype == np.float32
        gt = root / folder / "gt" / f"{number}.png"
        assert gt.exists() == (item["split"] == "test")
        if gt.exists():
            mask = cv2.imread(str(gt), cv2.IMREAD_UNCHANGED)
            assert mask.shape == colour.shape[:2] and mask.dtype == np.uint8
            assert (mask > 0).any() == (item["defect"] is not None)
        if item["defect"] is not None:
            assert 0.003 <= item["defect"]["share"] <= 0.1
            assert folder.endswith(item["defect"]["kind"])


def test_camera_file(root):
    camera = json.loads((root / "camera.json").read_text())
    assert {k: camera[k] for k in ("width", "height", "fx", "fy", "ppx", "ppy")} == {
        k: getattr(INTRINSICS, k) for k in ("width", "height", "fx", "fy", "ppx", "ppy")
    }


def test_readers_give_what_was_made(root):
    data = open_dataset(root)
    assert data.classes == ("bottle_cap", "gear")
    item = next(i for i in json.loads((root / "parts.json").read_text())["items"] if i["defect"] is not None)
    part = synthesize(item["class"], tuple(item["seed"]), item["defect"]["kind"])
    read = next(i for i in data.items if i.name == item["name"])
    np.testing.assert_array_equal(read.frame().colour, part.colour)
    np.testing.assert_array_equal(read.frame().xyz, part.xyz)
    np.testing.assert_array_equal(read.ground_truth(), part.gt)


def test_jobs_and_other_classes_change_nothing(root, tmp_path):
    write_dataset(tmp_path / "two", classes=("gear",), size="small", seed=5, jobs=2)
    both, alone = hashes(root), hashes(tmp_path / "two")
    assert {k: v for k, v in both.items() if k.startswith("gear/")} == {
        k: v for k, v in alone.items() if k.startswith("gear/")
    }
    items = [json.loads((r / "parts.json").read_text())["items"] for r in (root, tmp_path / "two")]
    assert [i for i in items[0] if i["class"] == "gear"] == items[1]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    made = []

    def fail(path, order):
        if len(made) == 3:
            raise RuntimeError("power cut")
        made.append(order)
        return original(path, order)

    original = writer._make
    monkeypatch.setattr(writer, "_make", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        write_dataset(tmp_path / "out", classes=("gear",), size="small", jobs=1)
    assert len(made) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classes": ("teapot",)}, ["teapot", "gear"]),
        ({"classes": ()}, ["gear"]),
        ({"size": "huge"}, ["huge", "small"]),
        ({"seed": -1}, ["-1"]),
        ({"jobs": -2}, ["-2"]),
    ],
)
def test_bad_arguments(tmp_path, arguments, words):
    with pytest.raises(EdgeAdError) as e:
        write_dataset(tmp_path / "out", **arguments)
    assert all(w in str(e.value) for w in words)
    assert not (tmp_path / "out").exists()


def test_orders_of_the_full_set():
    todo = writer.orders(CLASSES, "full", 0)
    assert len(todo) == len(CLASSES) * 200
    assert len({(o.folder, o.number) for o in todo}) == len(todo)
    assert len({(o.class_name, o.seed) for o in todo}) == len(todo), "no part is made twice"


def test_command(tmp_path, monkeypatch):
    monkeypatch.setitem(writer.SIZES, "small", {"train": 1, "validation": 1, "good": 1, "defective": 2})
    arguments = ["--out", str(tmp_path / "p"), "--classes", "cookie", "--parts", "small", "--jobs", "1"]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["parts"] == 5 and json.loads(done.stdout)["defective"] == 2
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 1 and "exists already" in again.stderr and "--force" in again.stderr
    assert CliRunner().invoke(command, [*arguments, "--force"]).exit_code == 0
