"""Recordings written frame by frame: what is read back, names, half written ones, and what is refused."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from edge_ad.data import recording_writer
from edge_ad.data.camera_file import cameras_of
from edge_ad.data.dataset import open_dataset
from edge_ad.data.recording_writer import RecordingWriter, depth16
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.runtime.geometry import frame_xyz
from tests.frames import boxes


def frame(number=0, **changes):
    return boxes(24, 32, (5, 12, 5 + number, 20), colour_timestamp_s=1.5, depth_timestamp_s=1.25, **changes)


def test_what_is_written_is_read_back(tmp_path):
    writer = RecordingWriter(tmp_path / "nut/train/good")
    metadata = {"camera": {"serial": "7", "settings": {"preset_sha256": "ab"}}, "depth_exposure": 120}
    kept = [frame(n, clock="hardware", sequence=n, metadata=metadata) for n in range(3)]
    assert [writer.write(f) for f in kept] == ["00000", "00001", "00002"]
    dataset = open_dataset(tmp_path)
    assert [(i.name, i.split, i.defect) for i in dataset.items] == [
        (f"nut/train/good/0000{n}", "train", "good") for n in range(3)
    ]
    for a, item in zip(kept, dataset.items, strict=True):
        b = item.frame()
        assert np.array_equal(a.colour, b.colour) and np.array_equal(a.depth, b.depth)
        assert (b.depth_scale_m, b.intrinsics, b.clock) == (1e-4, a.intrinsics, "hardware")
        assert (b.colour_timestamp_s, b.depth_timestamp_s) == (1.5, 1.25)
        assert b.metadata == {"depth_exposure": 120}
    folder = tmp_path / "nut/train/good"
    about = json.loads((folder / "camera.json").read_text())
    assert about["camera"] == metadata["camera"]
    assert len(list(folder.iterdir())) == 3 * 3 + 1  # colour, depth and times of each; one camera for all


def test_numbers_go_on_where_the_last_recording_ended(tmp_path):
    RecordingWriter(tmp_path).write(frame())
    assert RecordingWriter(tmp_path).write(frame()) == "00001"
    one, two = RecordingWriter(tmp_path), RecordingWriter(tmp_path)
    assert [one.write(frame()), two.write(frame()), one.write(frame())] == ["00002", "00003", "00004"]
    (tmp_path / "00100.color.png").touch()
    assert RecordingWriter(tmp_path).write(frame()) == "00101"


def test_another_camera_in_the_same_folder_gets_a_file_of_its_own(tmp_path):
    writer = RecordingWriter(tmp_path / "nut/train/good")
    writer.write(frame())
    moved = Intrinsics(32, 24, 40.0, 41.0, 15.0, 11.0, (0.1, 0.0, 0.0, 0.0, 0.0))
    writer.write(frame(intrinsics=moved, depth_scale_m=0.00025))
    first, second = (item.frame() for item in open_dataset(tmp_path).items)
    assert first.intrinsics == frame().intrinsics and first.depth_scale_m == 1e-4
    assert second.intrinsics == moved and second.depth_scale_m == 0.00025


def test_depth_in_metres_is_rounded_to_a_tenth_of_a_millimetre():
    z = np.array([[0.5, 0.50004, 6.5535], [6.6, np.nan, -1.0]], np.float32)
    for given in (
        Frame(np.zeros((2, 3, 3), np.uint8), z, 1.0),
        Frame(np.zeros((2, 3, 3), np.uint8), xyz=np.repeat(z[..., None], 3, axis=2)),
    ):
        units, scale = depth16(given)
        assert scale == 1e-4 and units.dtype == np.uint16
        assert units.tolist() == [[5000, 5000, 65535], [0, 0, 0]]


def test_raw_depth_is_registered_before_it_is_written(tmp_path):
    own = Intrinsics(32, 24, 31.0, 31.0, 15.2, 11.3)
    raw = frame(depth_intrinsics=own, extrinsics=Extrinsics(translation=(0.01, 0, 0)))
    RecordingWriter(tmp_path / "nut/train/good").write(raw)
    back = open_dataset(tmp_path).items[0].frame()
    assert np.array_equal(frame_xyz(raw), frame_xyz(back)) and back.depth_intrinsics is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intrinsics": None}, "without intrinsics"),
        ({"depth": None}, "neither depth nor xyz"),
        ({"depth": np.ones((10, 10), np.uint16)}, "depth of 10 x 10; expected 32 x 24"),
        ({"depth": np.zeros((24, 32), np.uint16)}, "no pixel has depth"),
        ({"depth_scale_m": 1.0}, "depth_scale_m = 1.0"),
    ],
)
def test_a_frame_that_the_layout_cannot_hold_leaves_nothing(tmp_path, changes, words):
    writer = RecordingWriter(tmp_path)
    with pytest.raises(InvalidFrame, match=words):
        writer.write(frame(**changes))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_recording(tmp_path, monkeypatch):
    writer = RecordingWriter(tmp_path)
    writer.write(frame())
    before = sorted(p.name for p in tmp_path.iterdir())
    real, calls = recording_writer.write_bytes, []

    def full(path, data):
        calls.append(path)
        if len(calls) == 3:
            raise EdgeAdError(f"cannot write {path}: No space left on device")
        real(path, data)

    monkeypatch.setattr(recording_writer, "write_bytes", full)
    with pytest.raises(EdgeAdError, match="No space left"):
        writer.write(frame())
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_mark_hides_what_is_half_written_until_its_writer_is_dead(tmp_path):
    folder = tmp_path / "nut/train/good"
    writer = RecordingWriter(folder)
    writer.write(frame())
    writer.write(frame())
    (folder / ".00001.partial").write_text(str(os.getpid()))
    (folder / "00001.color.png").unlink()
    assert [i.name for i in open_dataset(tmp_path).items] == ["nut/train/good/00000"]
    assert RecordingWriter(folder).write(frame()) == "00002"
    assert (folder / "00001.depth.png").exists()  # its writer lives
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (folder / ".00001.partial").write_text(str(dead.pid))
    RecordingWriter(folder)
    assert not (folder / "00001.depth.png").exists() and not (folder / ".00001.partial").exists()
    assert [i.name for i in open_dataset(tmp_path).items] == ["nut/train/good/00000", "nut/train/good/00002"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EdgeAdError, match="cannot make"):
        RecordingWriter(tmp_path / "file/sub")


def test_the_cameras_of_a_data_set_are_listed_once(tmp_path):
    one, two = {"serial": "1"}, {"serial": "2", "settings": {"preset_sha256": "ab"}}
    RecordingWriter(tmp_path / "nut/train/good").write(frame(metadata={"camera": one}))
    RecordingWriter(tmp_path / "nut/validation/good").write(frame(metadata={"camera": one}))
    writer = RecordingWriter(tmp_path / "bolt/train/good")
    writer.write(frame())
    writer.write(frame(metadata={"camera": two}))
    (tmp_path / "nut/camera.json").write_text("no json")
    assert cameras_of(tmp_path) == [two, one]
