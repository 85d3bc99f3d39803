"""Pad, crop, resize, normalise in one kernel: Pillow's bicubic digit for digit, nearest at pixel centres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_ad.errors import EdgeAdError
from edge_ad.frame import Sample, SampleTransform
from edge_ad.presets import load_preset
from edge_ad.runtime.kernels.launch import PRECISION, bicubic_table, preprocess_launch
from edge_ad.runtime.preprocess import Preprocessor
from tests.emulator.emulate import SCHEDULES, examples, needs_compiler
from tests.runtime.kernels.run import module, start

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
schedules = st.tuples(st.sampled_from(SCHEDULES), st.integers(0, 9))


def kernel(
    colour: np.ndarray, xyz: np.ndarray, flags: np.ndarray, t: SampleTransform, schedule: tuple[str, int]
) -> Sample:
    s = t.size
    bounds, taps = bicubic_table(t.side, s)
    rgb, cloud = np.full((3, s, s), np.nan, np.float32), np.full((s, s, 3), np.nan, np.float32)
    valid, lost = np.full((s, s), 9, np.uint8), np.full((s, s), 9, np.uint8)
    launch = start(module("preprocess", schedule).preprocess, preprocess_launch(t.side, s))
    window = (t.frame_height, t.frame_width, t.y0, t.x0, t.side, s)
    statistics = np.float32([*MEAN, *STD])
    launch(colour, xyz, flags, *window, bounds, taps, taps.shape[1], statistics, rgb, cloud, valid, lost)
    return Sample(rgb, cloud, valid.astype(bool), lost.astype(bool), t)


def runtime(colour: np.ndarray, xyz: np.ndarray, flags: np.ndarray, t: SampleTransform) -> Sample:
    prepare = Preprocessor(load_preset("paper").geometry, MEAN, STD)
    return prepare._cut(colour, xyz, flags & 1 > 0, flags & 2 > 0, t, ())


def scene(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    colour[: height // 2] = rng.choice([0, 255], (height // 2, 1, 3))  # hard edges overshoot and are clipped
    return (
        colour,
        rng.normal(size=(height, width, 3)).astype(np.float32),
        rng.integers(0, 4, (height, width)).astype(np.uint8),
    )


def held(colour: np.ndarray, xyz: np.ndarray, flags: np.ndarray, t: SampleTransform, schedule: tuple[str, int]) -> None:
    got, expected = kernel(colour, xyz, flags, t, schedule), runtime(colour, xyz, flags, t)
    np.testing.assert_array_equal(got.rgb, expected.rgb)
    np.testing.assert_array_equal(got.xyz, expected.xyz)
    np.testing.assert_array_equal(got.valid, expected.valid)
    np.testing.assert_array_equal(got.lost, expected.lost)


@needs_compiler
@settings(max_examples=examples(40))
@given(st.integers(5, 70), st.integers(5, 70), st.integers(1, 120), st.integers(1, 60), st.data(), schedules)
def test_any_window_is_the_runtimes_sample(
    height: int, width: int, side: int, size: int, data: st.DataObject, schedule: tuple[str, int]
) -> None:
    # A window that meets the image, as every window of the runtime does.
    y0 = data.draw(st.integers(1 - side, height - 1), label="y0")
    x0 = data.draw(st.integers(1 - side, width - 1), label="x0")
    held(*scene(height, width, side), SampleTransform(y0, x0, side, size, height, width), schedule)


@needs_compiler
@pytest.mark.parametrize(("height", "width", "side"), [(480, 640, 640), (300, 400, 173), (120, 160, 160)])
def test_camera_images_to_224(height: int, width: int, side: int) -> None:
    t = SampleTransform((height - side) // 2, (width - side) // 2, side, 224, height, width)
    held(*scene(height, width, 1), t, ("forward", 0))


@pytest.mark.parametrize(("side", "size"), [(640, 224), (224, 224), (100, 224), (225, 224), (7, 3), (1, 5), (5, 1)])
def test_the_table_is_pillows(side: int, size: int) -> None:
    """A row of unit impulses through Pillow shows its own coefficients, rounded to 8 bits."""
    bounds, taps = bicubic_table(side, size)
    assert np.abs(taps.sum(axis=1) - (1 << PRECISION)).max() <= taps.shape[1]
    assert (bounds[:, 0] >= 0).all() and (bounds.sum(axis=1) <= side).all()
    row = np.random.default_rng(side).integers(0, 256, (1, side), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(row).resize((size, 1), Image.Resampling.BICUBIC))[0]
    source = np.minimum(bounds[:, :1] + np.arange(taps.shape[1]), side - 1)
    sums = (row[0][source].astype(np.int64) * taps).sum(axis=1) + (1 << (PRECISION - 1))
    np.testing.assert_array_equal(np.clip(sums >> PRECISION, 0, 255), expected)


def test_launches_fit_shared_memory_or_are_refused() -> None:
    for side in (1, 224, 640, 1920, 4096, 20_000):
        launch = preprocess_launch(side, 224)
        assert launch.shared <= 48 * 1024 and launch.block % 32 == 0
    with pytest.raises(EdgeAdError, match="a window of 40000 camera pixels"):
        preprocess_launch(40_000, 224)
