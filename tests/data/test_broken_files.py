"""Every kind of broken file: one line that names the file, what was found and what was expected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.data.dataset import open_dataset
from edge_ad.data.images import read_colour, read_depth, read_mask, read_xyz
from edge_ad.errors import InvalidFrame
from tests.data import make


def _cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def _flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


RGB, XYZ, GT = "train/good/rgb/2.png", "train/good/xyz/2.tiff", "test/hole/gt/2.png"

MVTEC = [
    ("png cut in half", RGB, lambda p: _cut(p, p.stat().st_size // 2), "cut short"),
    ("png without its last chunk", RGB, lambda p: _cut(p, p.stat().st_size - 12), "no IEND"),
    ("png cut in its header", RGB, lambda p: _cut(p, 20), "cut short"),
    ("png with a flipped byte", RGB, lambda p: _flip(p, 60), "checksum"),
    ("empty file", RGB, lambda p: p.write_bytes(b""), "empty"),
    ("text file", RGB, lambda p: p.write_text("not an image"), "cannot be decoded"),
    ("missing", RGB, lambda p: p.unlink(), "does not exist"),
    ("16 bit colour", RGB, lambda p: make.png(p, make.depth()), "8 bits"),
    ("missing xyz", XYZ, lambda p: p.unlink(), "does not exist"),
    ("tiff cut in half", XYZ, lambda p: _cut(p, p.stat().st_size // 2), "cut short"),
    ("tiff cut in its header", XYZ, lambda p: _cut(p, 6), "cut short"),
    ("text as tiff", XYZ, lambda p: p.write_text("not an image"), "no TIFF"),
    ("another size", XYZ, lambda p: make.tiff(p, make.xyz(8, 11)), "expected 12 x 8"),
    ("one channel", XYZ, lambda p: make.tiff(p, make.xyz()[..., 0]), "(H, W, 3)"),
    ("three planes", XYZ, lambda p: make.tiff(p, make.xyz().transpose(2, 0, 1)), "(H, W, 3)"),
    ("uint16", XYZ, lambda p: make.tiff(p, np.ones((8, 12, 3), np.uint16)), "uint16"),
    ("millimetres", XYZ, lambda p: make.tiff(p, make.xyz() * 1000), "metres"),
]


@pytest.mark.parametrize(("what", "file", "spoil", "word"), MVTEC, ids=[case[0] for case in MVTEC])
def test_mvtec3d(tmp_path, what, file, spoil, word):
    make.mvtec3d_class(tmp_path / "bagel")
    path = tmp_path / "bagel" / file
    spoil(path)
    items = open_dataset(tmp_path).items
    with pytest.raises(InvalidFrame) as e:
        items[0].frame()
    assert str(path) in str(e.value) and word in str(e.value) and "\n" not in str(e.value)
    items[1].frame()  # the others are still read


TRUTH = [
    ("cut", lambda p: _cut(p, p.stat().st_size // 2), "cut short"),
    ("missing among others", lambda p: p.unlink(), "does not exist"),
    ("another size", lambda p: make.png(p, make.mask(7, 12)), "expected 12 x 8"),
]


@pytest.mark.parametrize(("what", "spoil", "word"), TRUTH, ids=[case[0] for case in TRUTH])
def test_truth(tmp_path, what, spoil, word):
    make.mvtec3d_class(tmp_path / "bagel")
    path = tmp_path / "bagel" / GT
    spoil(path)
    (item,) = [i for i in open_dataset(tmp_path).items if i.name == "bagel/test/hole/2"]
    with pytest.raises(InvalidFrame) as e:
        item.ground_truth()
    assert str(path) in str(e.value) and word in str(e.value)


RECORDING = [
    ("no camera file", "camera.json", lambda p: p.unlink(), "no camera file"),
    ("camera no JSON", "camera.json", lambda p: p.write_text("{"), "not JSON"),
    ("camera a list", "camera.json", lambda p: p.write_text("[]"), "JSON list"),
    ("camera not text", "camera.json", lambda p: p.write_bytes(b"\xff\xfe{"), "not JSON"),
    ("no fx", "camera.json", lambda p: make.camera(p, fx=None), "no fx"),
    ("two faults at once", "camera.json", lambda p: make.camera(p, fx=None, ppy="3"), 'no fx, ppy = "3"'),
    ("fx 0", "camera.json", lambda p: make.camera(p, fx=0), "fx = 0"),
    ("fx true", "camera.json", lambda p: make.camera(p, fx=True), "fx = true"),
    ("fx NaN", "camera.json", lambda p: make.camera(p, fx=float("nan")), "fx = NaN"),
    ("fx beyond float", "camera.json", lambda p: make.camera(p, fx=10**400), "fx = 1000"),
    ("half a pixel", "camera.json", lambda p: make.camera(p, width=12.5), "width = 12.5"),
    ("no scale", "camera.json", lambda p: make.camera(p, depth_scale_m=None), "no depth_scale_m"),
    ("scale in mm", "camera.json", lambda p: make.camera(p, depth_scale_m=1), "0.001 for depth in millimetres"),
    ("not aligned", "camera.json", lambda p: make.camera(p, depth_aligned_to="depth"), "depth_aligned_to = 'depth'"),
    ("alignment unsaid", "camera.json", lambda p: make.camera(p, depth_aligned_to=None), "no depth_aligned_to"),
    ("3 coefficients", "camera.json", lambda p: make.camera(p, distortion=[0, 0, 0]), "3 distortion"),
    ("coefficients of text", "camera.json", lambda p: make.camera(p, distortion=["0"]), "no list of numbers"),
    ("camera of another size", "camera.json", lambda p: make.camera(p, width=8, height=12), "expected 12 x 8"),
    ("8 bit depth", "part2.depth.png", lambda p: make.png(p, make.mask()), "16 bit"),
    ("colour as depth", "part2.depth.png", lambda p: make.png(p, make.colour()), "3 channels, uint8"),
    ("depth of another size", "part2.depth.png", lambda p: make.png(p, make.depth(8, 13)), "expected 12 x 8"),
    ("depth cut", "part2.depth.png", lambda p: _cut(p, p.stat().st_size // 2), "cut short"),
    ("no depth", "part2.depth.png", lambda p: p.unlink(), "does not exist"),
    ("no colour", "part2.color.png", lambda p: p.unlink(), "does not exist"),
    ("a folder", "part2.color.png", lambda p: (p.unlink(), p.mkdir()), "cannot be read"),
]


@pytest.mark.parametrize(("what", "file", "spoil", "word"), RECORDING, ids=[case[0] for case in RECORDING])
def test_recordings(tmp_path, what, file, spoil, word):
    path = make.recordings_flat(tmp_path) / file
    spoil(path)
    item = open_dataset(tmp_path).items[0]
    with pytest.raises(InvalidFrame) as e:
        item.frame()
    assert path.name in str(e.value) and str(tmp_path) in str(e.value) and word in str(e.value), e.value
    assert "\n" not in str(e.value)


EYECANDIES = [
    ("no range file", "000_info_depth.yaml", lambda p: p.unlink(), "does not exist"),
    ("no max", "000_info_depth.yaml", lambda p: p.write_text("normalization:\n  min: 3\n"), "min: 3"),
    ("range of text", "000_info_depth.yaml", lambda p: p.write_text("min: near\nmax: far\n"), "min: near"),
    ("range of NaN", "000_info_depth.yaml", lambda p: p.write_text("min: nan\nmax: 2\n"), "finite"),
    ("range upside down", "000_info_depth.yaml", lambda p: p.write_text("min: 3\nmax: 2\n"), "min <= max"),
    ("range not text", "000_info_depth.yaml", lambda p: p.write_bytes(b"\xff\xff"), "cannot be read"),
    ("8 bit depth", "000_depth.png", lambda p: make.png(p, make.mask(16, 16)), "16 bit"),
    ("no light 4", "000_image_4.png", lambda p: p.unlink(), "does not exist"),
]


@pytest.mark.parametrize(("what", "file", "spoil", "word"), EYECANDIES, ids=[case[0] for case in EYECANDIES])
def test_eyecandies(tmp_path, what, file, spoil, word):
    path = make.eyecandies_class(tmp_path / "Confetto") / "train/data" / file
    spoil(path)
    items = open_dataset(tmp_path).items
    with pytest.raises(InvalidFrame) as e:
        items[0].frame()
    assert str(path) in str(e.value) and word in str(e.value)
    items[1].frame()


def test_a_broken_mask_is_told_when_it_is_read(tmp_path):
    make.recordings_flat(tmp_path)
    (tmp_path / "part3.mask.png").write_bytes(b"")
    item = open_dataset(tmp_path).items[1]
    assert (item.split, item.defect) == ("test", "anomaly")
    item.frame()
    with pytest.raises(InvalidFrame, match=r"part3\.mask\.png is empty"):
        item.ground_truth()


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_no_cut_png_is_ever_read(tmp_path_factory, where):
    path = make.png(tmp_path_factory.mktemp("cut") / "a.png", make.depth())
    _cut(path, where % path.stat().st_size)
    with pytest.raises(InvalidFrame):
        read_depth(path)


@pytest.mark.parametrize("pages", [False, True])
@given(where=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_cut_tiff_is_refused_or_gives_the_same_values(tmp_path_factory, pages, where):
    # A cut may fall into a text tag at the very end, behind all values.
    path = make.tiff(tmp_path_factory.mktemp("cut") / "a.tiff", make.xyz(), pages=pages)
    _cut(path, where % path.stat().st_size)
    try:
        xyz = read_xyz(path)
    except InvalidFrame as e:
        assert "a.tiff" in str(e)
    else:
        np.testing.assert_array_equal(xyz, make.xyz())


@given(st.binary(max_size=300))
@settings(max_examples=50, deadline=None)
def test_any_bytes_give_an_image_or_one_error(tmp_path_factory, noise):
    folder = tmp_path_factory.mktemp("noise")
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00\x08\x00\x00\x00", b"BM"):
        for read, name in ((read_colour, "a.png"), (read_xyz, "a.tiff")):
            (folder / name).write_bytes(start + noise)
            try:
                assert read(folder / name).shape[2] == 3
            except InvalidFrame as e:
                assert name in str(e) and "\n" not in str(e)


def test_jpeg_cut_short_is_told(tmp_path):
    path = make.png(tmp_path / "a.jpg", make.colour(64, 64))
    assert read_colour(path).shape == (64, 64, 3)
    _cut(path, path.stat().st_size * 2 // 3)
    with pytest.raises(InvalidFrame, match="JPEG is cut short"):
        read_colour(path)


def test_colour_from_grey_and_alpha(tmp_path):
    rgba = np.dstack([make.colour(), np.full((8, 12), 7, np.uint8)])
    np.testing.assert_array_equal(read_colour(make.png(tmp_path / "alpha.png", rgba)), make.colour())
    grey = read_colour(make.png(tmp_path / "grey.png", make.mask()))
    np.testing.assert_array_equal(grey, np.repeat(make.mask()[..., None], 3, 2))
    # An opaque alpha channel is no defect.
    clear = np.zeros((8, 12, 4), np.uint8)
    clear[..., 3] = 255
    clear[1, 2, 0] = 255
    assert read_mask(make.png(tmp_path / "mask.png", clear)).sum() == 1
