from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_ad.errors import EdgeAdError
from edge_ad.outputs import open_output
from edge_ad.outputs.folder import NAME_BYTES, FolderOutput, map_to_uint16, safe_name
from tests.outputs.helpers import SHAPE, a_frame, a_result, an_invalid_result


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_frame_gives_three_pictures_and_a_line(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path / 'out'}") as output:
        output.write(a_frame(), a_result(name="bolt/test/hole/003"))
    folder = tmp_path / "out"
    stem = "bolt_test_hole_003"
    assert files(folder) == {f"overlay/{stem}.png", f"mask/{stem}.png", f"map/{stem}.png", "results.jsonl"}
    (line,) = lines(folder)
    assert line["name"] == "bolt/test/hole/003"
    assert line["decision"] == "anomalous"
    assert line["files"] == {kind: f"{kind}/{stem}.png" for kind in ("overlay", "mask", "map")}


def test_mask_and_map_come_back_from_disk(tmp_path: Path) -> None:
    result = a_result()
    with open_output(f"folder:{tmp_path}") as output:
        output.write(a_frame(), result)
    mask = cv2.imread(str(tmp_path / "mask/part.png"), cv2.IMREAD_UNCHANGED)
    levels = cv2.imread(str(tmp_path / "map/part.png"), cv2.IMREAD_UNCHANGED)
    assert (mask.dtype, mask.shape, set(np.unique(mask))) == (np.uint8, SHAPE, {0, 255})
    assert np.array_equal(mask > 0, result.mask)
    assert levels.dtype == np.uint16
    scale = lines(tmp_path)[0]["map_scale"]
    assert np.allclose(levels * scale, result.map, atol=scale / 2)


def test_overlay_on_disk_keeps_its_colours(tmp_path: Path) -> None:
    """RGB in, RGB on disk: the plate of an anomalous part is red, not blue."""
    with open_output(f"folder:{tmp_path}") as output:
        output.write(a_frame(), a_result())
    blue, green, red = cv2.imread(str(tmp_path / "overlay/part.png"))[3, 3].tolist()
    assert red > 150
    assert max(green, blue) < 60


def test_a_frame_that_could_not_be_read_gives_a_line_alone(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path}") as output:
        output.write(None, an_invalid_result())
    assert files(tmp_path) == {"results.jsonl"}
    (line,) = lines(tmp_path)
    assert (line["decision"], line["score"], line["files"]) == ("invalid", None, {})


def test_every_line_is_on_disk_before_the_next_frame(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path}?overlay=0&mask=0&map=0") as output:
        for i in range(3):
            output.write(a_frame(), a_result(sequence=i))
            assert [line["sequence"] for line in lines(tmp_path)] == list(range(i + 1))
    assert files(tmp_path) == {"results.jsonl"}


def test_infinite_numbers_become_null(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path}?overlay=0") as output:
        output.write(a_frame(), a_result(score=float("inf")))
    text = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))["score"] is None


def test_frames_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path}?overlay=0&map=0") as output:
        for _ in range(3):
            output.write(a_frame(), a_result())
    assert files(tmp_path) == {"results.jsonl", "mask/part.png", "mask/part-2.png", "mask/part-3.png"}
    assert [line["files"]["mask"] for line in lines(tmp_path)] == [  # type: ignore[index]
        "mask/part.png",
        "mask/part-2.png",
        "mask/part-3.png",
    ]


def test_a_second_run_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    for i in range(2):
        with open_output(f"folder:{tmp_path}?overlay=0&mask=0&map=0") as output:
            output.write(None, an_invalid_result(sequence=i))
        with open(tmp_path / "results.jsonl", "ab") as f:
            f.write(b'{"name": "torn')
    with open_output(f"folder:{tmp_path}"):
        pass
    assert [line["sequence"] for line in lines(tmp_path)] == [0, 1]


def test_a_torn_first_line_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b'{"name": "to')
    with open_output(f"folder:{tmp_path}") as output:
        output.write(None, an_invalid_result())
    assert len(lines(tmp_path)) == 1


@pytest.mark.parametrize("content", [b"hello\n", b"[1]\n", b"{}\n", b"3\n"])
def test_a_foreign_results_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.jsonl").write_bytes(content)
    with pytest.raises(EdgeAdError, match="not this program's"):
        open_output(f"folder:{tmp_path}")
    assert (tmp_path / "results.jsonl").read_bytes() == content


def test_a_foreign_folder_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(EdgeAdError, match="holds something else"):
        open_output(f"folder:{tmp_path}")
    assert files(tmp_path) == {"thesis.txt"}


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with open_output(f"folder:{tmp_path}"), pytest.raises(EdgeAdError, match="another run"):
        open_output(f"folder:{tmp_path}")
    open_output(f"folder:{tmp_path}").close()


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x", encoding="utf-8")
    with pytest.raises(EdgeAdError, match="cannot write into"):
        open_output(f"folder:{tmp_path / 'out'}")


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("folder:", "without a folder"),
        ("folder:x?depth=1", "option 'depth=1'"),
        ("folder:x?map=2", "option 'map=2'"),
        ("file:x", "output 'file:x'"),
        ("folder", "output 'folder'"),
        ("", "output ''"),
    ],
)
def test_an_unknown_uri_is_one_clear_error(
    uri: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeAdError) as error:
        open_output(uri)
    assert found in error.value.found
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = FolderOutput(tmp_path)
    output.write(None, an_invalid_result())
    write = os.write

    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def torn(fd: int, data: memoryview) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(fd, data[:10])

    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(EdgeAdError, match="No space left"):
        output.write(None, an_invalid_result())
    monkeypatch.setattr(os, "write", write)
    output.write(None, an_invalid_result())
    output.close()
    assert len(lines(tmp_path)) == 2


def test_a_killed_run_leaves_whole_lines_and_every_file_they_name(tmp_path: Path) -> None:
    code = (
        "from edge_ad.outputs import open_output\nfrom tests.outputs.helpers import a_frame, a_result\n"
        f"output = open_output({f'folder:{tmp_path}'!r})\n"
        "for i in range(10_000):\n    output.write(a_frame(), a_result(sequence=i, name=str(i)))\n"
        "    print(i, flush=True)\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    while process.stdout.readline() != b"5\n":
        assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    with open_output(f"folder:{tmp_path}"):
        pass  # drops a torn last line
    rows = lines(tmp_path)
    assert len(rows) >= 6
    for row in rows:
        for name in row["files"].values():  # type: ignore[attr-defined]
            assert cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED) is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "000007"),
        ("..", "000007"),
        (".hidden", "hidden"),
        ("/etc/passwd", "_etc_passwd"),
        ("../../x", "_.._x"),
        ("a\\b:c", "a_b_c"),
        ("line\nbreak\x00", "line_break_"),
        ("Schraube M8 gr\u00fcn", "Schraube_M8_gr\u00fcn"),
    ],
)
def test_safe_name(name: str, expected: str) -> None:
    assert safe_name(name, 7) == expected


@given(st.text(st.characters(), max_size=300))
def test_a_safe_name_is_one_file_in_its_folder(name: str) -> None:
    safe = safe_name(name, 0)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\\x00\n:*?"<>|')
    assert not safe.startswith(".")
    assert len(safe.encode("utf-8")) <= NAME_BYTES


@given(hnp.arrays(np.float32, (4, 5), elements=st.floats(0, 1e6, width=32)))
def test_a_map_survives_16_bits_within_half_a_level(values: np.ndarray) -> None:
    levels, scale = map_to_uint16(values)
    assert scale > 0
    assert np.all(np.abs(levels * scale - values.astype(np.float64)) <= scale * 0.5 * (1 + 1e-6))


def test_a_map_of_nothing_and_nan_is_black() -> None:
    levels, scale = map_to_uint16(np.array([[np.nan, -1.0, np.inf, 0.0]], np.float32))
    assert (levels.tolist(), scale) == ([[0, 0, 0, 0]], 1.0)


def test_a_closed_folder_takes_nothing(tmp_path: Path) -> None:
    output = open_output(f"folder:{tmp_path}")
    output.close()
    output.close()
    with pytest.raises(EdgeAdError, match="closed"):
        output.write(None, an_invalid_result())
