"""Depth to cloud, the test of every pixel, depth onto the colour grid: kernels against the runtime's functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.runtime import registration
from edge_ad.runtime.geometry import Plane, _rays, depth_to_xyz, frame_xyz
from edge_ad.runtime.kernels import reference
from edge_ad.runtime.kernels.launch import FLOATS, REGISTERED, UNITS, per_thread
from edge_ad.runtime.preprocess import HostPixels
from tests.emulator.emulate import examples, needs_compiler
from tests.runtime.kernels.run import module, start

pytestmark = needs_compiler

BARE = Intrinsics(61, 47, 70.3, 69.8, 30.2, 23.9)
LENS = Intrinsics(61, 47, 70.3, 69.8, 30.2, 23.9, (0.1, -0.05, 0.002, -0.001, 0.01))


def image(rng: np.random.Generator, k: Intrinsics, kind: str) -> np.ndarray:
    raw = rng.integers(300, 900, (k.height, k.width)).astype(np.uint16)
    raw[rng.random(raw.shape) < 0.2] = 0
    if kind == "uint16":
        return raw
    depth = raw.astype(np.float32) / np.float32(1.7)
    depth[0, :4] = np.nan, np.inf, -np.inf, -3
    return depth


def masks(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, Any]:
    plane = np.float32([0.02, -0.05, -0.99, 0.6])
    return {"roi": rng.random(shape) > 0.3, "expected": rng.random(shape) > 0.4, "plane": plane}


def tables(k: Intrinsics) -> tuple[np.ndarray, np.ndarray, int]:
    x, y = _rays(k)
    if any(k.distortion):
        return np.ascontiguousarray(x), np.ascontiguousarray(y), 1
    return np.ascontiguousarray(x[0]), np.ascontiguousarray(y[:, 0]), 0


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("k", [BARE, LENS], ids=["bare", "lens"])
@pytest.mark.parametrize("tested", ["nothing", "mask", "plane", "all"])
def test_cloud_and_flags(kind: str, k: Intrinsics, tested: str) -> None:
    rng = np.random.default_rng(3)
    depth, scale = image(rng, k, kind), 0.00123
    m = masks(rng, depth.shape)
    wanted = {"nothing": (), "mask": ("roi",), "plane": ("plane",), "all": ("roi", "expected", "plane")}[tested]
    given = {name: m[name] if name in wanted else None for name in m}
    max_depth = 0.9 if tested == "all" else 0.0
    xyz, flags = np.full((*depth.shape, 3), np.nan, np.float32), np.full(depth.shape, 9, np.uint8)
    launch = start(module("depth", ("random", 1)).depth_to_cloud, per_thread(depth.size))
    masks_ = (given["roi"], given["expected"], given["plane"], 0.005, max_depth)
    seen = np.zeros(2, np.int32)
    kinds = {"uint16": UNITS, "float32": FLOATS}
    launch(depth.view(np.uint8), kinds[kind], scale, *tables(k), k.height, k.width, *masks_, xyz, flags, seen)
    np.testing.assert_array_equal(xyz, depth_to_xyz(depth, scale, k))
    expected = reference.pixel_flags(xyz, **given, plane_distance=0.005, max_depth=max_depth)
    np.testing.assert_array_equal(flags, expected)
    assert (flags & reference.FOREGROUND).any()
    assert seen.tolist() == [(flags & bit > 0).sum() for bit in (reference.HAS_DEPTH, reference.USABLE)]


def test_flags_are_the_runtimes_masks() -> None:
    """Bit for bit what runtime.preprocess says of a cloud, the plane's height included."""
    rng = np.random.default_rng(5)
    xyz = depth_to_xyz(image(rng, BARE, "uint16"), 0.001, BARE)
    roi = rng.random(xyz.shape[:2]) > 0.2
    plane = Plane((0.02, -0.05, -0.99), 0.6, 1.0)
    flags = reference.pixel_flags(
        xyz, roi=roi, plane=np.float32([*plane.normal, plane.offset]), plane_distance=0.005, max_depth=0.8
    )
    pixels = HostPixels.of(xyz, 0.8, roi)
    above = pixels.above(plane, 0.005)
    for bit, wanted in (
        (reference.FOREGROUND, above),
        (reference.HAS_DEPTH, pixels.has_depth),
        (reference.USABLE, pixels.usable),
    ):
        np.testing.assert_array_equal(flags & bit > 0, wanted)
    assert 0.1 < above.mean() < 0.9


def test_few_points_for_the_host() -> None:
    rng = np.random.default_rng(2)
    xyz = rng.normal(size=(30, 3)).astype(np.float32)
    pixels = rng.integers(0, 30, 300).astype(np.int32)
    out = np.full((300, 3), np.nan, np.float32)
    start(module("depth").gather_points, per_thread(300))(xyz, pixels, 300, out)
    np.testing.assert_array_equal(out, xyz[pixels])


def test_a_cloud_as_the_camera_gave_it() -> None:
    rng = np.random.default_rng(7)
    xyz = rng.normal(0.5, 0.3, (20, 31, 3)).astype(np.float32)
    xyz[0, 0, 0], xyz[1, 1, 2], xyz[2, 2, 1] = np.nan, np.inf, -np.inf
    frame = Frame(colour=np.zeros((20, 31, 3), np.uint8), xyz=xyz.copy())
    m = masks(rng, (20, 31))
    flags = np.full((20, 31), 9, np.uint8)
    arguments = (m["roi"], m["expected"], m["plane"], 0.01, 0.0)
    start(module("depth").check_cloud, per_thread(620))(xyz, 620, *arguments, flags, np.zeros(2, np.int32))
    np.testing.assert_array_equal(xyz, frame_xyz(frame))
    np.testing.assert_array_equal(flags, reference.pixel_flags(xyz, **m, plane_distance=0.01))


def turned(angle: float, shift: tuple[float, float, float]) -> Extrinsics:
    c, s = np.cos(angle), np.sin(angle)
    return Extrinsics(tuple(float(v) for v in (c, 0, s, 0, 1, 0, -s, 0, c)), shift)


def registered(depth: np.ndarray, source: Intrinsics, target: Intrinsics, e: Extrinsics, schedule: tuple[str, int]):
    """(H, W) on the colour grid by the kernel and by its own reference, and the cloud made from the former."""
    rays = registration.corner_rays(source, e)
    camera = registration.colour_camera(target, e)
    out, widest = np.zeros((target.height, target.width), np.uint32), np.zeros(1, np.int32)
    m = module("depth", schedule)
    n, kind = depth.size, UNITS if depth.dtype == np.uint16 else FLOATS
    after = (*rays, n, camera, target.height, target.width, out, widest)
    start(m.register_depth, per_thread(n))(depth.reshape(-1).view(np.uint8), kind, 0.001, 65535, *after)
    xyz = np.full((target.height, target.width, 3), np.nan, np.float32)
    flags, seen = np.zeros(out.shape, np.uint8), np.zeros(2, np.int32)
    convert = start(m.depth_to_cloud, per_thread(out.size))
    size = (target.height, target.width)
    bytes_ = out.reshape(-1).view(np.uint8)
    convert(bytes_, kind + REGISTERED, 0.001, *tables(target), *size, None, None, None, 0.0, 0.0, xyz, flags, seen)
    expected, wide = reference.register_depth(depth.reshape(-1), 0.001, rays, camera, size)
    assert widest[0] == wide
    got = np.where(out == 0, 0, ~out if kind == UNITS else (~out).view(np.float32)).astype(depth.dtype)
    return got, expected, xyz


@settings(max_examples=examples(12))
@given(
    st.floats(-0.05, 0.05),
    st.floats(-0.03, 0.03),
    st.sampled_from(["uint16", "float32"]),
    st.sampled_from([("forward", 0), ("reverse", 0), ("random", 4)]),
    st.sampled_from([BARE, LENS]),
)
def test_registration(angle: float, shift: float, kind: str, schedule: tuple[str, int], target: Intrinsics) -> None:
    rng = np.random.default_rng(11)
    source = Intrinsics(50, 40, 55.0, 54.0, 24.7, 19.6)
    depth = image(rng, source, kind)
    e = turned(angle, (shift, -shift / 2, 0.004))
    got, expected, xyz = registered(depth, source, target, e, schedule)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(xyz, depth_to_xyz(got, 0.001, target))
    # The runtime's own loop, digit for digit: one rule in float32, on the CPU and on the GPU.
    np.testing.assert_array_equal(got, registration.register_depth(depth, 0.001, source, target, e))
    assert (got > 0).mean() > 0.5


def test_a_square_wider_than_16_pixels_is_counted_and_left_out() -> None:
    source, target = Intrinsics(4, 4, 2.0, 2.0, 1.5, 1.5), Intrinsics(100, 100, 200.0, 200.0, 50.0, 50.0)
    got, expected, _ = registered(np.full((4, 4), 500, np.uint16), source, target, turned(0, (0, 0, 0)), ("forward", 0))
    assert not expected.any() and not got.any()
