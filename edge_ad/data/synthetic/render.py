"""A pinhole camera above the part: each pixel's own ray is met with the surface, then shaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.data.synthetic.grid import CELLS, PITCH_MM, SIDE_MM, PartMaps, Rng, blur
from edge_ad.frame import F32, Intrinsics

SIZE = 320
INTRINSICS = Intrinsics(width=SIZE, height=SIZE, fx=985.0, fy=985.0, ppx=161.3, ppy=158.6)
_STEP_MM = 1.2  # between two levels of the search
_BACKGROUND = (0.115, 0.12, 0.125)


@dataclass(frozen=True)
class Pose:
    """Part to camera: ``p_camera = rotation @ p_part + translation`` (mm)."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


@dataclass(frozen=True)
class Light:
    """One lamp and a diffuse sky. direction: (3,) unit vector towards the lamp, camera frame."""

    direction: NDArray[np.float64]
    colour: F32
    ambient: F32
    exposure: float


@dataclass(frozen=True)
class View:
    """Without noise: colour (H, W, 3) float32 in 0..255, distance (H, W) float32 mm along the axis,
    height (H, W) mm above the plane, steepness (H, W) of the surface seen, glare (H, W) highlights."""

    colour: F32
    distance: F32
    height: F32
    steepness: F32
    glare: F32


def random_pose(rng: Rng) -> Pose:
    """Any rotation about the vertical, a tilt of up to about 2.5 degrees, a place near the middle."""
    turn = rng.uniform(0, 2 * np.pi)
    tilt = np.deg2rad(np.clip(rng.normal(0, 1.2, 2), -2.5, 2.5))
    c, s = np.cos(turn), np.sin(turn)
    spin = np.asarray([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    about_x = np.asarray([[1, 0, 0], [0, np.cos(tilt[0]), -np.sin(tilt[0])], [0, np.sin(tilt[0]), np.cos(tilt[0])]])
    about_y = np.asarray([[np.cos(tilt[1]), 0, np.sin(tilt[1])], [0, 1, 0], [-np.sin(tilt[1]), 0, np.cos(tilt[1])]])
    down = np.diag([1.0, -1.0, -1.0])  # the part's up axis points at the camera
    place = np.asarray([rng.uniform(-5, 5), rng.uniform(-5, 5), 420.0 + rng.uniform(-7, 7)])
    return Pose(about_y @ about_x @ down @ spin, place)


def random_light(rng: Rng) -> Light:
    """A lamp at the cell's left front, as mounted, with what ageing and daylight change."""
    azimuth, elevation = np.deg2rad(215 + rng.normal(0, 14)), np.deg2rad(rng.uniform(48, 64))
    direction = np.asarray(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), -np.sin(elevation)]
    )
    warmth = rng.normal(0, 0.035)
    tint = np.asarray([1 + warmth, 1.0, 1 - warmth], dtype=np.float32)
    ambient = float(rng.uniform(0.42, 0.56))
    return Light(direction, tint, np.float32(ambient) * (2 - tint), float(np.exp(rng.normal(0, 0.07))))


@lru_cache(maxsize=1)
def rays() -> NDArray[np.float32]:
    """(H, W, 3) float32 pixel rays with z = 1, camera frame."""
    k = INTRINSICS
    u, v = np.meshgrid(np.arange(k.width), np.arange(k.height))
    d = np.stack([(u - k.ppx) / k.fx, (v - k.ppy) / k.fy, np.ones_like(u)], axis=2)
    d = d.astype(np.float32)
    d.flags.writeable = False
    return d


@lru_cache(maxsize=1)
def _towards_eye() -> F32:
    """(H, W, 3) unit vectors from the surface to the camera, camera frame."""
    eye = -rays() / np.linalg.norm(rays(), axis=2, keepdims=True)
    return np.asarray(eye, dtype=np.float32)


def _cells(mm: F32) -> F32:
    return (mm + np.float32(SIDE_MM / 2)) * np.float32(1 / PITCH_MM) - np.float32(0.5)


def _look_up(field: NDArray[Any], col: F32, row: F32) -> F32:
    return np.asarray(cv2.remap(field, col, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), dtype=np.float32)


def intersect(height: F32, pose: Pose) -> tuple[F32, F32, F32, F32]:
    """First meeting of every pixel's ray with the height field.

    Marches down level by level, then halves the bracket and ends with one secant step.
    Returns (s, col, row, z), each (H, W) float32: the distance along the camera's axis in mm, the place
    in the part's grid and the height there. The point is exactly ``s * ray``.
    """
    origin = (-pose.rotation.T @ pose.translation).astype(np.float32)
    d = (rays().reshape(-1, 3) @ pose.rotation.astype(np.float32)).reshape(SIZE, SIZE, 3)
    slope_x, slope_y = d[..., 0] / d[..., 2], d[..., 1] / d[..., 2]

    # With z the height, the ray is at origin + (z - origin_z) * slope: linear in z.
    col0, col1 = _cells(origin[0] - origin[2] * slope_x), slope_x * np.float32(1 / PITCH_MM)
    row0, row1 = _cells(origin[1] - origin[2] * slope_y), slope_y * np.float32(1 / PITCH_MM)

    def surface(z: F32) -> F32:
        return _look_up(height, col0 + z * col1, row0 + z * row1)

    # Levels at multiples of one step, wherever the highest point is: what a defect adds in one place changes nothing in
    # another, where a ray that grazes a steep edge may be found to meet either side.
    levels = int(np.ceil((float(height.max()) + 0.01) / _STEP_MM))
    top = levels * _STEP_MM
    high = np.full((SIZE, SIZE), top, dtype=np.float32)
    low = np.zeros_like(high)
    open_ = np.ones((SIZE, SIZE), dtype=np.bool_)
    for k in range(1, levels):
        level = np.float32(_STEP_MM * (levels - k))
        above = surface(np.full_like(high, level)) < level
        high = np.where(open_ & above, level, high)
        low = np.where(open_ & ~above, np.maximum(low, level), low)
        open_ &= above
    for _ in range(4):
        middle = (high + low) * np.float32(0.5)
        above = surface(middle) < middle
        high, low = np.where(above, middle, high), np.where(above, low, middle)
    gap_low, gap_high = surface(low) - low, high - surface(high)
    part_way = np.clip(gap_low / np.maximum(gap_low + gap_high, 1e-6), 0, 1)
    z: F32 = np.asarray(low + (high - low) * part_way, dtype=np.float32)
    s = (z - origin[2]) / d[..., 2]
    return s.astype(np.float32), col0 + z * col1, row0 + z * row1, z


def _shadow(height: F32, direction: NDArray[np.float64]) -> F32:
    """(N, N) share of the lamp's light that arrives, by looking towards the lamp at half resolution."""
    small = cv2.resize(height, (CELLS // 2, CELLS // 2), interpolation=cv2.INTER_AREA)
    flat = float(np.hypot(direction[0], direction[1]))
    blocked = np.zeros_like(small)
    for reach in (1.0, 2.0, 3.2, 4.6, 6.5, 9.0, 12.0):
        dx, dy = (reach * float(direction[i]) / flat / (2 * PITCH_MM) for i in (0, 1))
        shift = np.asarray([[1, 0, -dx], [0, 1, -dy]], dtype=np.float32)
        moved = cv2.warpAffine(small, shift, (CELLS // 2, CELLS // 2))
        blocked = np.maximum(
            blocked, (moved - small - reach * float(direction[2]) / flat) / np.float32(1 + 0.15 * reach)
        )
    soft = cv2.GaussianBlur(np.clip(blocked, 0, 1).astype(np.float32), (0, 0), 1.2)
    return np.asarray(1 - cv2.resize(soft, (CELLS, CELLS), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def render(maps: PartMaps, pose: Pose, light: Light, mat: F32) -> View:
    """What an ideal camera would see. mat: (H, W) float32 texture of the supporting plane."""
    s, col, row, z = intersect(maps.height, pose)
    seen = maps.colour_height
    if seen is maps.height:
        c_s, c_col, c_row, c_z = s, col, row, z
    else:
        c_s, c_col, c_row, c_z = intersect(seen, pose)
    colour, glare = _shade(maps, pose, light, mat, (c_s, c_col, c_row, c_z))
    steep = cv2.morphologyEx(s, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return View(colour, s, z, np.asarray(steep, dtype=np.float32), glare)


def _shade(maps: PartMaps, pose: Pose, light: Light, mat: F32, hit: tuple[F32, F32, F32, F32]) -> tuple[F32, F32]:
    _, col, row, z = hit
    h: F32 = np.asarray(cv2.GaussianBlur(maps.colour_height, (0, 0), 1.0), dtype=np.float32)
    gx = cv2.Sobel(h, cv2.CV_32F, 1, 0, ksize=3, scale=1 / (8 * PITCH_MM))
    gy = cv2.Sobel(h, cv2.CV_32F, 0, 1, ksize=3, scale=1 / (8 * PITCH_MM))
    occlusion = np.exp(-0.16 * np.clip(blur(h, 2.0) - h, 0, 8) - 0.05 * np.clip(blur(h, 6.0) - h, 0, 12))
    lamp = pose.rotation.T @ light.direction
    # One look-up for all fields: four channels are as cheap as one.
    fields = _look_up(cv2.merge([gx, gy, occlusion, _shadow(maps.colour_height, lamp)]), col, row)
    albedo = _look_up(cv2.merge([*cv2.split(maps.albedo), maps.gloss]), col, row)
    gx, gy, ao, lit = cv2.split(fields)
    on_grid = (col > 0) & (col < CELLS - 1) & (row > 0) & (row < CELLS - 1)
    ao[~on_grid] = 1
    lit[~on_grid] = 1
    part = np.clip(z - 0.2, 0, 1)
    base = mat[..., None] * np.asarray(_BACKGROUND, dtype=np.float32)
    base += part[..., None] * (albedo[..., :3] - base)
    up = 1 / np.sqrt(1 + gx * gx + gy * gy)
    light_x, light_y, light_z = (float(v) for v in lamp)
    diffuse = np.clip((light_z - light_x * gx - light_y * gy) * up, 0, None) * lit
    # Half-way vector in the part's frame: (eye + lamp) / |eye + lamp|, both unit vectors.
    half = (_towards_eye() + light.direction.astype(np.float32)) @ pose.rotation.astype(np.float32)
    hx, hy, hz = cv2.split(half)
    facing = (hz - hx * gx - hy * gy) * up / np.sqrt(hx * hx + hy * hy + hz * hz)
    gloss = albedo[..., 3] * part
    spark = gloss * np.clip(facing, 0, None) ** 28 * lit
    sky = ao * (0.65 + 0.35 * up)
    linear = base * (sky[..., None] * light.ambient + (0.75 * diffuse)[..., None] * light.colour)
    linear += (0.22 * spark)[..., None] * light.colour
    exposed = cv2.GaussianBlur(linear.astype(np.float32) * np.float32(light.exposure), (0, 0), 0.6)
    colour = cv2.pow(np.clip(exposed, 0, 1), 1 / 2.2) * np.float32(255)
    return np.asarray(colour, dtype=np.float32), np.asarray(spark, dtype=np.float32)
