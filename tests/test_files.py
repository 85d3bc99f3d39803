"""Files and folders are there whole or not at all, and what a killed process left goes away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_ad import files
from edge_ad.errors import EdgeAdError
from edge_ad.files import (
    new_folder,
    read_json,
    sha256,
    sweep,
    take_place,
    write_bytes,
    write_image,
    write_json,
    write_npz,
)
from tests.killed import run_until_killed


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """The number of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_bytes_json_and_arrays_come_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep/er/a.bin", b"abc")
    assert (tmp_path / "deep/er/a.bin").read_bytes() == b"abc"
    assert sha256(tmp_path / "deep/er/a.bin") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    write_npz(tmp_path / "a.npz", x=np.arange(4))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["x"], np.arange(4))
    assert names(tmp_path) == ["a.json", "a.npz", "deep"]


def test_images_are_rgb(tmp_path: Path) -> None:
    import cv2

    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 0] = 200
    write_image(tmp_path / "a.png", image)
    bgr = cv2.imread(str(tmp_path / "a.png"))
    assert bgr is not None and bgr[0, 0].tolist() == [0, 0, 200]
    with pytest.raises(EdgeAdError, match="cannot encode uint8"):
        write_image(tmp_path / "a.nonsense", image)
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    write_bytes(tmp_path / "a", b"old")

    def fail(fd: int) -> None:
        raise kind

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((EdgeAdError, KeyboardInterrupt)) as e:
        write_bytes(tmp_path / "a", b"new")
    assert isinstance(kind, KeyboardInterrupt) or "No space left on device" in str(e.value)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_folder_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(EdgeAdError, match="cannot write"):
        write_bytes(tmp_path / "a/b", b"")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "does not exist"), (b"{", "is not JSON"), (b"\xff\xfe", "is not JSON")]
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(EdgeAdError, match=message):
        read_json(tmp_path / "a.json")


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a").exists()
    assert names(tmp_path) == ["a"] and (tmp_path / "a/x").read_text() == "1"
    with pytest.raises(EdgeAdError, match="exists already"), new_folder(tmp_path / "a"):
        pytest.fail("the block must not run")
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "a", replace=True) as folder:
        (folder / "x").write_text("2")
        raise ZeroDivisionError
    assert names(tmp_path) == ["a"] and (tmp_path / "a/x").read_text() == "1"
    with new_folder(tmp_path / "a", replace=True) as folder:
        (folder / "y").write_text("2")
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["y"]


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(EdgeAdError, match="is a file"), new_folder(tmp_path / "a", replace=True):
        pytest.fail("the block must not run")
    assert (tmp_path / "a").read_text() == "mine"


def test_when_the_new_folder_cannot_take_its_place_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("old")
    (tmp_path / "new").mkdir()
    moved = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(5, "Input/output error")
        moved(source, target)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        take_place(tmp_path / "new", tmp_path / "a")
    assert names(tmp_path) == ["a", "new"] and (tmp_path / "a/x").read_text() == "old"


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path, dead_pid: int) -> None:
    for name in (
        f".a.{dead_pid}.tmp",
        f".a.{dead_pid}.old.tmp",
        f"..a.{dead_pid}.tmp.{dead_pid}.tmp",
        f".b.{dead_pid}.tmp",
        f".a.{os.getppid()}.tmp",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("")
    (tmp_path / ".a.tmp").mkdir()
    (tmp_path / "a").mkdir()
    with new_folder(tmp_path / "a", replace=True):
        pass
    assert names(tmp_path) == sorted([f".b.{dead_pid}.tmp", f".a.{os.getppid()}.tmp", ".a.tmp", "a"])


def test_a_folder_that_was_moved_away_before_a_kill_comes_back(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".a.{dead_pid}.old.tmp").mkdir()
    (tmp_path / f".a.{dead_pid}.old.tmp/x").write_text("precious")
    (tmp_path / f".a.{dead_pid}.tmp").mkdir()
    sweep(tmp_path, "a")
    assert names(tmp_path) == ["a"] and (tmp_path / "a/x").read_text() == "precious"


def test_the_first_write_into_a_folder_clears_files_of_dead_processes(tmp_path: Path, dead_pid: int) -> None:
    (tmp_path / f".old picture.png.{dead_pid}.tmp").write_text("half")
    (tmp_path / f".folder.{dead_pid}.tmp").mkdir()
    (tmp_path / f".b.{os.getppid()}.tmp").write_text("at work")
    write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == sorted([f".b.{os.getppid()}.tmp", f".folder.{dead_pid}.tmp", "a"])


KILLED = """
import sys
from pathlib import Path
from edge_ad import files
from tests.killed import run_until_killed
path = Path(sys.argv[1])
if sys.argv[2] == "folder":
    with files.new_folder(path, replace=True) as folder:
        (folder / "x").write_text("new")
        kill()
files.os.replace = lambda *_: kill()
files.write_json(path, {"new": 1})
"""


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_kill_leaves_the_old_one(tmp_path: Path, what: str) -> None:
    target = tmp_path / "a"
    if what == "folder":
        target.mkdir()
        (target / "x").write_text("old")
    else:
        write_json(target, {"old": 1})
    run_until_killed(KILLED, target, what)
    assert len(names(tmp_path)) == 2
    assert (target / "x").read_text() == "old" if what == "folder" else json.loads(target.read_text()) == {"old": 1}
    files._swept.clear()  # as a new process has it
    if what == "folder":
        with new_folder(target, replace=True) as folder:
            (folder / "x").write_text("new")
    else:
        write_json(target, {"new": 1})
    assert names(tmp_path) == ["a"]


def test_replacing_spares_folders_of_another_kind(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "photo.txt").write_text("x")
    with (
        pytest.raises(EdgeAdError, match="holds something else"),
        files.new_folder(mine, replace=True, marker="m.json"),
    ):
        raise AssertionError("the block must not run")
    assert (mine / "photo.txt").read_text() == "x"
    for text in ("1", "2"):
        with files.new_folder(tmp_path / "ours", replace=True, marker="m.json") as folder:
            (folder / "m.json").write_text(text)
    assert (tmp_path / "ours/m.json").read_text() == "2"
