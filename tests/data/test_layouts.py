"""Every layout: what is listed, in which order, and that what was written is what is read."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_ad.data.camera_file import find_camera
from edge_ad.data.dataset import open_dataset
from edge_ad.data.eyecandies import parse_pairs
from edge_ad.data.images import natural_key
from edge_ad.errors import EdgeAdError, InvalidFrame
from tests.data import make
from tests.shared import SHARED, needs_shared


def test_mvtec3d_lists_in_order_and_reads_what_was_written(tmp_path):
    make.mvtec3d_class(tmp_path / "bagel")
    make.mvtec3d_class(tmp_path / "rope", 10, 6)
    data = open_dataset(tmp_path)
    assert data.layout == "mvtec3d" and data.classes == ("bagel", "rope")
    assert [i.name for i in data.select("bagel")] == [
        *("bagel/train/good/2", "bagel/train/good/10", "bagel/validation/good/0", "bagel/test/good/0"),
        *("bagel/test/hole/2", "bagel/test/hole/10"),
    ]
    (item,) = [i for i in data.select("rope", "test", "hole") if i.name.endswith("/10")]
    frame = item.frame()
    np.testing.assert_array_equal(frame.colour, make.colour(10, 6, 10))
    np.testing.assert_array_equal(frame.xyz, make.xyz(10, 6, 10))
    assert frame.xyz.dtype == np.float32 and frame.depth is None and frame.intrinsics is None
    assert (frame.name, frame.class_name, frame.source) == (item.name, "rope", str(item.source))
    np.testing.assert_array_equal(item.ground_truth(), make.mask(10, 6) > 0)
    for good in data.select(defect="good"):
        truth = good.ground_truth()
        assert truth.shape == good.frame().shape and truth.dtype == bool and not truth.any()


def test_mvtec3d_root_may_be_one_class(tmp_path):
    make.mvtec3d_class(tmp_path / "bagel")
    assert open_dataset(tmp_path / "bagel").classes == ("bagel",)
    assert open_dataset(tmp_path / "bagel", class_name="roll").classes == ("roll",)


@pytest.mark.parametrize("pages", [False, True])
def test_mvtec3d_camera_json_and_nan(tmp_path, pages):
    make.mvtec3d_class(tmp_path / "bagel")
    make.camera(tmp_path / "camera.json")
    cloud = make.xyz()
    cloud[0, 0] = np.nan
    make.tiff(tmp_path / "bagel/train/good/xyz/2.tiff", cloud.astype(np.float64), pages=pages)
    frame = open_dataset(tmp_path).items[0].frame()
    assert frame.intrinsics.fy == 601.0
    np.testing.assert_array_equal(frame.xyz, cloud)


def test_mvtec3d_defect_without_truth_is_unknown(tmp_path):
    make.mvtec3d_class(tmp_path / "bagel")
    shutil.rmtree(tmp_path / "bagel/test/hole/gt")
    shutil.rmtree(tmp_path / "bagel/test/good/gt")
    data = open_dataset(tmp_path)
    assert data.select(defect="hole")[0].ground_truth() is None
    assert not data.select(split="test", defect="good")[0].ground_truth().any()


def test_eyecandies(tmp_path):
    make.eyecandies_class(tmp_path / "GummyBear")
    data = open_dataset(tmp_path)
    assert data.layout == "eyecandies"
    assert {i.name.removeprefix("GummyBear/"): i.defect for i in data.items} == {
        "train/000": "good",
        "train/001": "good",
        "validation/000": "good",
        "test/00": "good",
        "test/01": "dents",
        "test/02": "combined",
        "test/03": "anomaly",
        "test/04": "good",
        "test_private/00": "unknown",
    }
    by_name = {i.name: i for i in data.items}
    frame = by_name["GummyBear/train/000"].frame()
    np.testing.assert_array_equal(frame.colour, make.colour(16, 16, 4))
    raw = make.depth(16, 16).astype(np.float64)
    assert frame.depth.dtype == np.float32 and frame.depth_scale_m == 1.0
    np.testing.assert_allclose(frame.depth, 3.5 + (5.25 - 3.5) * raw / 65535, rtol=1e-6)
    # The focal length belongs to 512 pixels; the principal point is half the size.
    assert frame.intrinsics.fx == frame.intrinsics.fy == pytest.approx(711.11 * 16 / 512)
    assert (frame.intrinsics.ppx, frame.intrinsics.ppy) == (8, 8)
    np.testing.assert_array_equal(by_name["GummyBear/test/01"].ground_truth(), make.mask(16, 16) > 0)
    assert not by_name["GummyBear/test/00"].ground_truth().any()
    assert not by_name["GummyBear/train/000"].ground_truth().any()
    assert by_name["GummyBear/test_private/00"].ground_truth() is None


@pytest.mark.parametrize(
    "text",
    [
        "normalization:\n  max: 5.25\n  min: 3.5\n",
        "normalization: {max: 5.25, min: 3.5}",
        "normalization:  # metres\n    'min': 3.5 # near\n    \"max\": 5.25\n",
        "min: 3.5\r\nmax: 5.25\r\n",
    ],
)
def test_depth_range_texts(text):
    pairs = parse_pairs(text)
    assert (float(pairs["min"]), float(pairs["max"])) == (3.5, 5.25)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_depth_range_of_any_number_is_read_exactly(low, high):
    pairs = parse_pairs(f"normalization:\n  max: {high!r}\n  min: {low!r}\n")
    assert (float(pairs["min"]), float(pairs["max"])) == (low, high)


def test_recordings_flat(tmp_path):
    folder = make.recordings_flat(tmp_path / "gear")
    data = open_dataset(folder)
    assert data.layout == "recordings" and data.classes == ("gear",)
    assert [(i.name, i.split, i.defect) for i in data.items] == [
        ("part2", "train", "good"),
        ("part3", "test", "anomaly"),
        ("part4", "test", "good"),
        ("part10", "train", "good"),
    ]
    frame = data.items[0].frame()
    np.testing.assert_array_equal(frame.colour, make.colour())
    np.testing.assert_array_equal(frame.depth, make.depth())
    assert frame.depth.dtype == np.uint16 and frame.depth_scale_m == 0.0001 and frame.clock == "none"
    assert (frame.intrinsics.width, frame.intrinsics.height, frame.intrinsics.ppx) == (12, 8, 5.5)
    assert data.items[0].ground_truth() is None
    np.testing.assert_array_equal(data.items[1].ground_truth(), make.mask() > 0)
    assert open_dataset(folder, class_name="cog").classes == ("cog",)


def test_recordings_nested_and_roi(tmp_path):
    data = open_dataset(make.recordings_nested(tmp_path))
    assert data.classes == ("bolt", "nut")
    assert [i.name for i in data.select("nut")] == [
        *("nut/train/good/a1", "nut/validation/good/a2", "nut/test/good/a3", "nut/test/scratch/a4")
    ]
    assert data.select("nut", "test", "scratch")[0].frame().depth_scale_m == 0.0001
    assert data.select("nut", "test", "scratch")[0].ground_truth().sum() == 6
    assert not data.select("nut", "train")[0].ground_truth().any()
    np.testing.assert_array_equal(data.roi("bolt"), make.mask() > 0)
    assert data.roi("nut") is None
    make.png(tmp_path / "roi.png", np.zeros((8, 12), np.uint8))
    with pytest.raises(InvalidFrame, match=r"roi\.png is black"):
        open_dataset(tmp_path).roi("nut")
    assert {i.class_name for i in open_dataset(tmp_path, class_name="nut").items} == {"nut"}


def test_recording_times_come_from_its_own_json(tmp_path):
    make.recordings_flat(tmp_path)
    sidecar = tmp_path / "part2.json"
    sidecar.write_text('{"colour_timestamp_s": 1.5, "depth_timestamp_s": 1.25, "clock": "hardware"}')
    frame = open_dataset(tmp_path).items[0].frame()
    assert (frame.colour_timestamp_s, frame.depth_timestamp_s, frame.clock) == (1.5, 1.25, "hardware")
    sidecar.write_text('{"colour_timestamp_s": "soon"}')
    with pytest.raises(InvalidFrame, match=r"part2\.json: colour_timestamp_s"):
        open_dataset(tmp_path).items[0].frame()


def test_camera_file_the_most_specific_wins(tmp_path):
    colour_path = tmp_path / "view0_b_1.color.png"

    def found():
        return find_camera(colour_path, "view0_b_1", (tmp_path, tmp_path / "up")).name

    with pytest.raises(InvalidFrame, match="no camera file"):
        found()
    make.camera(tmp_path / "camera_view.json")  # "view" is no prefix up to a "_": never taken
    order = [
        "camera.json",
        "camera_view0.json",
        "camera_view0_b.json",
        "camera_view0_b_1.json",
        "view0_b_1.camera.json",
    ]
    for name in order:
        make.camera(tmp_path / name)
        assert found() == name


@given(st.lists(st.text("ab01_", max_size=6), max_size=8))
def test_natural_order_is_total_and_does_not_depend_on_the_start(names):
    once = sorted(names, key=natural_key)
    names.reverse()
    assert once == sorted(names, key=natural_key)


@given(st.text("abc_", max_size=4), st.integers(0, 10**6), st.integers(0, 10**6))
def test_natural_order_counts(prefix, a, b):
    assert (natural_key(f"{prefix}{a}") < natural_key(f"{prefix}{b}")) == (a < b)


def test_opening_reads_no_image(tmp_path):
    make.mvtec3d_class(tmp_path / "bagel")
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(b"")
    assert len(open_dataset(tmp_path).items) == 6


def test_hidden_files_and_labels_are_no_samples(tmp_path):
    make.recordings_flat(tmp_path)
    for name in ("._part2.color.png", ".part9.depth.png", "part2.label.png", "view_roi.png"):
        (tmp_path / name).write_bytes(b"x")
    assert [i.name for i in open_dataset(tmp_path).items] == ["part2", "part3", "part4", "part10"]


def _empty(root):
    root.mkdir()


def _mixed(root):
    make.mvtec3d_class(root / "bagel")
    make.recordings_nested(root / "..")  # writes bolt and nut beside: moved in below
    shutil.move(root / ".." / "nut", root / "nut")


def _flat_and_nested(root):
    make.recordings_nested(root)
    make.recording(root, "loose")


@pytest.mark.parametrize(
    ("prepare", "kwargs", "words"),
    [
        (lambda root: None, {}, ["does not exist", "a folder"]),
        (lambda root: root.write_text("x"), {}, ["is a file", "a folder"]),
        (_empty, {}, ["no samples", "camera.json", "train/good/rgb"]),
        (lambda root: make.mvtec3d_class(root / "a"), {"layout": "eyecandies"}, ["no samples", "eyecandies"]),
        (lambda root: make.mvtec3d_class(root / "a"), {"layout": "coco"}, ["coco", "mvtec3d"]),
        (lambda root: make.mvtec3d_class(root / "a"), {"class_name": "b"}, ["no class 'b'", "one of: a"]),
        (lambda root: (root / "a/train/good/rgb").mkdir(parents=True), {}, ["no samples", "empty"]),
        (_mixed, {}, ["more than one layout", "bagel", "nut"]),
        (_flat_and_nested, {}, ["more than one layout", "bolt"]),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, prepare, kwargs, words):
    root = tmp_path / "data"
    prepare(root)
    with pytest.raises(EdgeAdError) as e:
        open_dataset(root, **kwargs)
    assert all(word in str(e.value) for word in [*words, str(root)][: None if "layout" not in kwargs else -1]), e.value
    assert "\n" not in str(e.value)


def test_a_layout_named_settles_a_mixed_folder(tmp_path):
    _mixed(tmp_path / "data")
    assert open_dataset(tmp_path / "data", "mvtec3d").classes == ("bagel",)


@needs_shared
def test_real_tote_uses_the_camera_of_each_view():
    data = open_dataset(SHARED / "data/real/arc_tote", class_name="tote")
    assert [(i.name, i.split) for i in data.items] == [
        (f"view{v}_{what}", split) for v in range(3) for what, split in (("empty", "train"), ("objects", "test"))
    ]
    frames = {i.name: i.frame() for i in data.items}
    assert [frames[f"view{v}_empty"].intrinsics.fx for v in range(3)] == [619.871277, 616.849915, 616.521545]
    for item in data.items:
        frame = frames[item.name]
        z = frame.depth * frame.depth_scale_m
        assert frame.shape == (480, 640) and 0.3 < np.median(z[z > 0]) < 1.5
        # The tote is red: RGB, not BGR.
        assert frame.colour[..., 0].mean() > frame.colour[..., 2].mean()
        assert (item.split == "test") == (item.ground_truth() is not None)


@needs_shared
def test_real_kinect_scenes():
    data = open_dataset(SHARED / "data/real/kinect_tabletop")
    assert [i.name for i in data.items] == [
        *("learn0", "learn12", "learn33", "learn40", "test0", "test31", "test45", "test60")
    ]
    assert {i.split for i in data.items} == {"train"}  # label.png is no mask
    frame = data.items[0].frame()
    assert frame.depth_scale_m == 0.001 and frame.intrinsics.fx == 525.0 and frame.depth.max() < 2000
