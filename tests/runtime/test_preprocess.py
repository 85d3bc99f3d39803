"""One pad and one crop for colour and depth; resampling rules; what is lost, cut off, or a part of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_ad.errors import InvalidFrame
from edge_ad.frame import Bool, Frame, Sample, SampleTransform
from edge_ad.runtime.maps import mask_to_camera
from edge_ad.runtime.parts import CUT_OFF
from edge_ad.runtime.preprocess import (
    Preprocessor,
    Scene,
    mask_to_sample,
    nearest_to_sample,
    resize_colour,
)
from tests.frames import boxes, geometry

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(480, 640), (640, 480), (600, 800), (517, 333)]


def preprocessor(scenes: dict[str, Scene] | None = None, **changes: Any) -> Preprocessor:
    return Preprocessor(geometry(**changes), MEAN, STD, scenes or {})


def grey(sample: Sample) -> np.ndarray:
    """The sample's first colour channel in grey levels again."""
    return sample.rgb[0] * STD[0] * 255 + MEAN[0] * 255


def centroid(weight: np.ndarray) -> np.ndarray:
    y, x = np.indices(weight.shape)
    return np.array([(y * weight).sum(), (x * weight).sum()]) / weight.sum()


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("crop", ["image", "roi", "part"])
def test_colour_and_depth_land_on_the_same_sample_pixels(height: int, width: int, crop: str) -> None:
    """Markers at the same camera pixels in both modalities meet on the sample grid to a fraction of a pixel.

    A known fault of earlier code pads the two differently unless the long side is a multiple of 100: 10 to 16 sample
    pixels apart at 640 x 480.
    """
    part = (height // 4, 3 * height // 4, width // 5, 4 * width // 5)
    frame = boxes(height, width, part)
    assert frame.depth is not None
    frame.colour[...] = 60
    depth = frame.depth.copy()
    markers = []
    for fy, fx in ((0.35, 0.3), (0.35, 0.7), (0.65, 0.3), (0.65, 0.7), (0.5, 0.5)):
        y, x, r = round(fy * height), round(fx * width), round(0.03 * min(height, width))
        box = (slice(y - r, y + r + 1), slice(x - r, x + r + 1))
        frame.colour[box] = 240
        depth[box] -= 100
        markers.append(box)
    roi = np.zeros((height, width), bool)
    roi[height // 6 : 5 * height // 6, width // 8 : 7 * width // 8] = True
    prepare = preprocessor({"c": Scene(roi=roi)} if crop == "roi" else {}, crop=crop)
    prepared = prepare(replace(frame, depth=depth), "c")
    (sample,) = prepared.samples
    assert sample.rgb.shape == (3, 224, 224) and sample.rgb.dtype == np.float32
    assert sample.xyz.shape == (224, 224, 3) and sample.xyz.dtype == np.float32
    for box in markers:
        here = np.zeros((height, width), bool)
        here[max(0, box[0].start - 9) : box[0].stop + 9, max(0, box[1].start - 9) : box[1].stop + 9] = True
        near = mask_to_sample(here, sample.transform)
        bright = np.where(near, np.clip(grey(sample) - 60, 0, None), 0)
        nearer = np.where(near & sample.valid, np.clip(0.47 - sample.xyz[..., 2], 0, None), 0)
        assert nearer.max() == pytest.approx(0.01, abs=1e-4)
        # The nearest rule moves an edge by up to half a pixel; a marker's two edges by less in the mean.
        np.testing.assert_allclose(centroid(bright), centroid(nearer), atol=0.5)
        exact = mask_to_sample(_mask(height, width, box), sample.transform)
        np.testing.assert_array_equal(nearer > 0.005, exact)


def _mask(height: int, width: int, box: tuple[slice, slice]) -> Bool:
    mask = np.zeros((height, width), bool)
    mask[box] = True
    return mask


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_whole_image_is_padded_evenly_to_a_square(height: int, width: int) -> None:
    t = preprocessor(background="none")(boxes(height, width)).samples[0].transform
    side = max(height, width)
    assert (t.side, t.frame_height, t.frame_width) == (side, height, width)
    assert (t.y0, t.x0) == ((height - side) // 2, (width - side) // 2)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (333, 517), (100, 90)])
def test_colour_is_pillows_antialiased_bicubic(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = max(height, width)
    t = SampleTransform((height - side) // 2, (width - side) // 2, side, 224, height, width)
    before, after = (side - height + 1) // 2, (side - height) // 2
    left, right = (side - width + 1) // 2, (side - width) // 2
    padded = np.pad(colour, ((before, after), (left, right), (0, 0)), mode="edge")
    expected = Image.fromarray(padded).resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_colour(colour, t), np.asarray(expected))


def test_rgb_is_normalised_channel_by_channel() -> None:
    frame = boxes(100, 100, (30, 70, 30, 70))
    frame.colour[...] = (10, 120, 250)
    sample = preprocessor()(frame).samples[0]
    for i, value in enumerate((10, 120, 250)):
        np.testing.assert_allclose(sample.rgb[i], (value / 255 - MEAN[i]) / STD[i], rtol=1e-5)


@given(st.integers(1, 400), st.integers(1, 300), st.integers(-40, 40), st.integers(-40, 40))
def test_nearest_rule(side: int, size: int, y0: int, x0: int) -> None:
    t = SampleTransform(y0, x0, side, size, 200, 150)
    rows = [y0 + int(np.floor((i + 0.5) * side / size + 1e-12)) for i in range(size)]
    np.testing.assert_array_equal(t.source_rows(), rows)
    image = np.arange(1, 200 * 150 + 1, dtype=np.float32).reshape(200, 150)
    got = nearest_to_sample(image, t)
    inside = ((t.source_rows() >= 0) & (t.source_rows() < 200))[:, None] & (
        (t.source_cols() >= 0) & (t.source_cols() < 150)
    )[None]
    assert (got[~inside] == 0).all() and (got[inside] > 0).all()
    r, c = np.nonzero(inside)
    np.testing.assert_array_equal(got[r, c], image[t.source_rows()[r], t.source_cols()[c]])


def test_xyz_is_never_interpolated() -> None:
    sample = preprocessor()(boxes(333, 517, (80, 200, 100, 300))).samples[0]
    assert set(np.unique(sample.xyz[..., 2].round(4))) == {np.float32(0), np.float32(0.47)}


def lose(frame: Frame, y0: int, y1: int, x0: int, x1: int) -> Frame:
    assert frame.depth is not None
    depth = frame.depth.copy()
    depth[y0:y1, x0:x1] = 0
    return replace(frame, depth=depth)


def test_free_pose_lost_depth_is_judged_inside_the_outline() -> None:
    frame = lose(boxes(224, 224, (60, 160, 60, 160)), 100, 120, 90, 130)
    frame = lose(frame, 10, 20, 10, 20)  # on the table: no concern
    sample = preprocessor()(frame).samples[0]
    assert int(sample.lost.sum()) == 20 * 40
    assert sample.lost[110, 110] and not sample.valid[110, 110]
    assert not sample.lost[15, 15]


def test_fixed_pose_lost_depth_is_judged_against_the_good_frames() -> None:
    expected = np.zeros((224, 224), bool)
    expected[50:170, 50:170] = True
    roi = np.zeros((224, 224), bool)
    roi[:, 100:] = True
    frame = lose(boxes(224, 224, (60, 160, 60, 160)), 40, 130, 90, 130)
    fixed = preprocessor({"c": Scene(expected_depth=expected)}, pose="fixed", background="none")
    assert int(fixed(frame, "c").samples[0].lost.sum()) == 80 * 40
    inside = preprocessor({"c": Scene(roi=roi, expected_depth=expected)}, pose="fixed", background="none")
    assert int(inside(frame, "c").samples[0].lost.sum()) == 80 * 30
    # A class of which nothing is known has nothing to lose.
    assert not fixed(frame, "other").samples[0].lost.any()


def test_without_a_plane_and_in_free_pose_nothing_says_where_depth_should_be() -> None:
    frame = lose(boxes(224, 224, (60, 160, 60, 160)), 100, 120, 90, 130)
    assert not preprocessor(background="none")(frame).samples[0].lost.any()


@pytest.mark.parametrize(
    "part", [(0, 60, 80, 140), (164, 224, 80, 140), (80, 140, 0, 60), (80, 140, 164, 224), (80, 140, 80, 140)]
)
def test_a_part_at_the_border_is_noted_as_cut_off(part: tuple[int, int, int, int]) -> None:
    sample = preprocessor()(boxes(224, 224, part)).samples[0]
    assert sample.notes == (() if part == (80, 140, 80, 140) else (CUT_OFF,))


def test_every_part_is_a_sample_of_its_own() -> None:
    frame = boxes(480, 640, (50, 150, 60, 200), (250, 420, 350, 500), (440, 450, 20, 30))
    prepared = preprocessor(crop="part")(frame)
    assert prepared.notes == ("1 small cluster not scored",)
    assert len(prepared.samples) == 2
    covered = np.zeros((480, 640), bool)
    for sample, (y0, y1, x0, x1) in zip(prepared.samples, [(250, 420, 350, 500), (50, 150, 60, 200)], strict=True):
        t = sample.transform
        diagonal = np.hypot(y1 - y0, x1 - x0)  # of the enclosing circle: a part that lies turned keeps its scale
        assert diagonal < t.side < 1.15 * diagonal + 4
        assert abs((t.y0 + t.side / 2) - (y0 + y1) / 2) <= 2 and abs((t.x0 + t.side / 2) - (x0 + x1) / 2) <= 2
        back = mask_to_camera(sample.valid, t)
        only = np.zeros((480, 640), bool)
        only[y0:y1, x0:x1] = True
        assert not (back & ~only)[:, : x0 - 3].any()
        covered |= back
    assert covered[100, 100] and covered[300, 400]
    whole = preprocessor(crop="image")(frame).samples
    assert len(whole) == 1
    assert mask_to_camera(whole[0].valid, whole[0].transform)[[100, 300], [100, 400]].all()


def test_max_depth_and_roi_limit_what_is_valid() -> None:
    frame = boxes(224, 224, (60, 160, 60, 160))
    near = preprocessor(background="none", max_depth_m=0.48)(frame).samples[0]
    assert int(near.valid.sum()) == 100 * 100
    roi = np.zeros((224, 224), bool)
    roi[:100] = True
    inside = preprocessor({"c": Scene(roi=roi)}, background="none")(frame, "c").samples[0]
    assert inside.valid[:100].all() and not inside.valid[100:].any()


@pytest.mark.parametrize(
    ("prepare", "frame", "message"),
    [
        (preprocessor(), boxes(224, 224), "no part stands above the supporting plane"),
        (preprocessor(), boxes(224, 224, depth=np.zeros((224, 224), np.uint16)), "no pixel has depth"),
        (preprocessor(max_depth_m=0.1), boxes(224, 224), "no pixel has depth inside"),
        (preprocessor(crop="roi"), boxes(224, 224), "class 'c' has no region of interest"),
        (preprocessor({"c": Scene(roi=np.ones((9, 9), bool))}), boxes(224, 224), "expected 9 x 9, the size of the"),
        (preprocessor({"c": Scene(roi=np.zeros((224, 224), bool))}), boxes(224, 224), "no pixel has depth inside"),
        (
            preprocessor({"c": Scene(expected_depth=np.ones((9, 8), bool))}, background="none"),
            boxes(224, 224),
            "a frame of 224 x 224 pixels; expected 8 x 9, the size of the expected depth",
        ),
    ],
)
def test_what_cannot_be_inspected(prepare: Preprocessor, frame: Frame, message: str) -> None:
    with pytest.raises(InvalidFrame, match=message):
        prepare(frame, "c")
