"""Folder and synthetic cameras, and their URIs."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors import SCHEMES, BrokenFrame, open_camera, paced
from edge_ad.sensors.uri import Uri, parse_uri
from tests.data import make
from tests.shared import SHARED, needs_shared

# -- URIs -------------------------------------------------------------------------------------------------------------


@given(
    st.from_regex(r"[a-z][a-z0-9+.-]{0,8}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(st.characters(exclude_categories=["Cs"]))
    ),
)
@example("folder", "a b?c=d&e%3F/100%", {"k=&": "v&=?%20+"})
def test_a_uri_written_and_parsed_is_the_same(scheme, path, options):
    uri = Uri(scheme, path, options)
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("folder:/data/run 1", Uri("folder", "/data/run 1")),
        ("folder:a:b?split=test&fps=", Uri("folder", "a:b", {"split": "test", "fps": ""})),
        ("folder:what%3F?class=a%26b", Uri("folder", "what?", {"class": "a&b"})),
        ("folder:50%", Uri("folder", "50%")),
        ("synthetic:", Uri("synthetic")),
        ("synthetic:?seed=3", Uri("synthetic", "", {"seed": "3"})),
        ("folder:a+b?", Uri("folder", "a+b")),
    ],
)
def test_uris_as_people_write_them(text, uri):
    assert parse_uri(text) == uri


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frames", ["names no scheme", "folder:frames"]),
        ("./frames:1", ["names no scheme", "folder:./frames:1"]),
        ("", ["names no scheme", "folder:, synthetic:"]),
        ("lidar:0", ["unknown scheme 'lidar:'", "folder:, synthetic:"]),
        ("Folder:x", ["names no scheme"]),
        ("synthetic:?seed", ["option 'seed'", "KEY=VALUE"]),
        ("synthetic:?seed=1&seed=2", ["twice"]),
        ("synthetic:?sede=1", ["option 'sede'", "seed"]),
        ("synthetic:?seed=-1", ["seed=-1", ">= 0"]),
        ("synthetic:?frames=2.5", ["frames=2.5", "whole number"]),
        ("synthetic:?defects=1.5", ["defects=1.5", "0 to 1"]),
        ("synthetic:?defects=nan", ["defects=nan", "0 to 1"]),
        ("synthetic:no-such-part", ["no-such-part", "one of"]),
        ("folder:", ["names no folder"]),
        ("folder:/no/such/folder", ["/no/such/folder does not exist"]),
    ],
)
def test_uris_that_are_refused(text, words):
    with pytest.raises(EdgeAdError) as e:
        open_camera(text)
    assert all(word in str(e.value) for word in words), e.value
    assert "\n" not in str(e.value)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused_in_one_line(text):
    try:
        assert parse_uri(text, tuple(SCHEMES)).scheme in SCHEMES
    except EdgeAdError as e:
        assert str(e)


# -- folder -----------------------------------------------------------------------------------------------------------


def test_folder_goes_on_after_a_broken_file(tmp_path):
    make.recordings_flat(tmp_path)
    (tmp_path / "part3.depth.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with open_camera(f"folder:{tmp_path}") as camera:
        seen = list(camera)
    assert [type(f) for f in seen] == [Frame, BrokenFrame, Frame, Frame]
    assert [(f.name, f.sequence) for f in seen] == [("part2", 0), ("part3", 1), ("part4", 2), ("part10", 3)]
    assert "part3.depth.png" in seen[1].error and seen[1].source.endswith("part3.color.png")
    assert seen[0].clock == "none" and seen[0].source == str(tmp_path / "part2.color.png")
    assert "4 samples (recordings)" in camera.describe()


def test_folder_name_is_no_class_of_the_part(tmp_path):
    make.recordings_flat(tmp_path)
    assert {f.class_name for f in open_camera(f"folder:{tmp_path}")} == {None}
    assert {f.class_name for f in open_camera(f"folder:{tmp_path}?class=nut")} == {"nut"}
    make.recordings_nested(tmp_path / "classes")
    assert {f.class_name for f in open_camera(f"folder:{tmp_path}/classes")} == {"bolt", "nut"}


def test_folder_selects(tmp_path):
    make.mvtec3d_class(tmp_path / "bagel")
    make.mvtec3d_class(tmp_path / "rope")
    names = [f.name for f in open_camera(f"folder:{tmp_path}?class=rope&split=test&defect=hole")]
    assert names == ["rope/test/hole/2", "rope/test/hole/10"]
    with pytest.raises(EdgeAdError, match="split=test&defect=hole"):
        open_camera(f"folder:{tmp_path}?split=test&defect=dent")
    with pytest.raises(EdgeAdError, match="no samples in"):
        open_camera(f"folder:{tmp_path}?layout=recordings")


def test_folder_loop_gives_new_names_and_numbers(tmp_path):
    make.recordings_flat(tmp_path)
    seen = []
    for frame in open_camera(f"folder:{tmp_path}?split=test&loop=1"):
        seen.append((frame.name, frame.sequence))
        if len(seen) == 5:
            break
    assert seen == [("part3", 0), ("part4", 1), ("part3@2", 2), ("part4@2", 3), ("part3@3", 4)]


def test_pace_holds_the_rate_and_sends_no_burst():
    start, taken = time.monotonic(), []
    for i in paced(range(6), 50):
        taken.append(time.monotonic() - start)
        if i == 2:
            time.sleep(0.1)  # five periods
    assert all(b - a >= 0.019 for a, b in itertools.pairwise(taken[3:]))
    assert taken[2] >= 0.039
    assert list(paced(range(3), 0)) == [0, 1, 2]


@needs_shared
def test_folder_of_real_recordings():
    with open_camera(f"folder:{SHARED}/data/real/arc_tote?split=test") as camera:
        frames = list(camera)
    assert [f.name for f in frames] == ["view0_objects", "view1_objects", "view2_objects"]
    assert all(f.colour.shape == (480, 640, 3) and f.depth.dtype == np.uint16 for f in frames)


# -- synthetic --------------------------------------------------------------------------------------------------------


def _same(a, b):
    return np.array_equal(a.colour, b.colour) and np.array_equal(a.xyz, b.xyz) and a.name == b.name


def test_synthetic_cycles_and_repeats_itself():
    from edge_ad.data.synthetic import CLASSES, kinds_for

    classes = tuple(CLASSES)
    uri = f"synthetic:?seed=7&frames={len(classes) + 1}&defects=0.5"
    with open_camera(uri) as camera:
        frames = list(camera)
    assert [f.class_name for f in frames] == [*classes, classes[0]]
    assert [f.sequence for f in frames] == list(range(len(classes) + 1))
    for frame in frames:
        defect = frame.name.removeprefix(f"{frame.class_name}-{frame.sequence:05d}-")
        assert defect in ("good", *kinds_for(frame.class_name))
        assert frame.colour.dtype == np.uint8 and frame.xyz.dtype == np.float32
        assert frame.xyz.shape == frame.colour.shape and (frame.xyz[..., 2] > 0).any()
    again = next(iter(open_camera(uri)))
    assert _same(frames[0], again)
    other = next(iter(open_camera("synthetic:?seed=8&frames=1&defects=0.5")))
    assert not np.array_equal(other.colour, frames[0].colour)


def test_synthetic_share_of_defects():
    from edge_ad.data.synthetic import CLASSES

    name = CLASSES[0]
    assert all(f.name.endswith("-good") for f in open_camera(f"synthetic:{name}?frames=3&defects=0"))
    assert not any(f.name.endswith("-good") for f in open_camera(f"synthetic:{name}?frames=3&defects=1"))
    endless = iter(open_camera(f"synthetic:{name}?frames=0"))
    assert [next(endless).sequence for _ in range(2)] == [0, 1]
