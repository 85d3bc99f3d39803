"""Procedural parts as a depth camera sees them: organised clouds of random solids and relief plates.

A view is drawn from one seed: a random body (composed solids, or a relief given as a height field), seen through an
orthographic or pinhole camera on a square grid, with small surface features (dents, bumps, scratches, steps,
roughness), then sensor noise and dropouts. The camera frame is the product's: x right, y down, z away from the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_ad.frame import F32, Bool
from edge_ad.training.pretrain import solids as sd
from edge_ad.training.pretrain.solids import Solid

GRID = 224
MIN_VALID = 3000
DISTANCE = 4.0  # camera to the body's middle, in body units (a body's bounding radius is about 1)


@dataclass(frozen=True)
class View:
    """An organised depth view.

    Attributes
    ----------
    xyz : (S, S, 3) float32 as the sensor gives it (noise included), zeros where not ``valid``.
    clean : (S, S, 3) float32 the same points without sensor noise.
    valid : (S, S) bool.
    kind : which family of bodies it was drawn from.
    """

    xyz: F32
    clean: F32
    valid: Bool
    kind: str


def random_rotation(rng: np.random.Generator, max_tilt: float = np.pi) -> F32:
    """Rotation (3, 3): a turn about the viewing axis after a tilt of at most ``max_tilt`` radians about a random
    axis of the image plane."""
    spin, tilt, axis = rng.uniform(0, 2 * np.pi), rng.uniform(0, max_tilt), rng.uniform(0, 2 * np.pi)
    u = np.array([np.cos(axis), np.sin(axis), 0.0])
    k = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    lean = np.eye(3) + np.sin(tilt) * k + (1 - np.cos(tilt)) * (k @ k)
    c, s = np.cos(spin), np.sin(spin)
    return np.asarray(lean @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.float32)


def _vector(rng: np.random.Generator, low: float, high: float) -> F32:
    return rng.uniform(low, high, 3).astype(np.float32)


def _primitive(rng: np.random.Generator, size: float) -> Solid:
    pick = rng.integers(8)
    if pick == 0:
        return sd.box(size * _vector(rng, 0.3, 1.0), size * rng.choice([0.0, 0.03, 0.1]))
    if pick == 1:
        return sd.cylinder(size * rng.uniform(0.25, 0.9), size * rng.uniform(0.2, 1.0), size * rng.choice([0.0, 0.05]))
    if pick == 2:
        return sd.superquadric(size * _vector(rng, 0.4, 1.0), 2.0)
    if pick == 3:
        return sd.torus(size * rng.uniform(0.45, 0.75), size * rng.uniform(0.12, 0.35))
    if pick == 4:
        return sd.cone(size * rng.uniform(0.4, 0.9), size * rng.uniform(0.05, 0.5), size * rng.uniform(0.3, 0.9))
    if pick == 5:
        return sd.superquadric(size * _vector(rng, 0.4, 1.0), float(rng.choice([3.0, 4.0, 6.0, 10.0])))
    if pick == 6:
        return sd.prism(int(rng.integers(3, 9)), size * rng.uniform(0.4, 0.8), size * rng.uniform(0.2, 0.8))
    return sd.gear(int(rng.integers(6, 24)), size * rng.uniform(0.55, 0.8), size * 0.08, size * rng.uniform(0.15, 0.6))


def _plate(rng: np.random.Generator) -> Solid:
    """A flat base with bosses, ribs and rings upon it, holes and grooves in it."""
    thick = float(rng.uniform(0.08, 0.4))
    base: Solid = [
        lambda: sd.box(np.array([rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9), thick], np.float32), 0.02),
        lambda: sd.cylinder(float(rng.uniform(0.6, 1.0)), thick, 0.02),
        lambda: sd.prism(int(rng.integers(3, 9)), float(rng.uniform(0.55, 0.85)), thick),
        lambda: sd.gear(int(rng.integers(8, 30)), float(rng.uniform(0.7, 0.9)), 0.06, thick),
        lambda: sd.superquadric(np.array([0.9, rng.uniform(0.5, 0.9), thick], np.float32), 6.0),
    ][rng.integers(5)]()
    eye = np.eye(3, dtype=np.float32)
    for _ in range(rng.integers(1, 6)):
        where = np.array([*rng.uniform(-0.55, 0.55, 2), -thick], np.float32)
        size = float(rng.uniform(0.06, 0.3))
        turn = random_rotation(rng, 0.0)
        pick = rng.integers(6)
        if pick == 0:
            base = sd.difference(base, sd.moved(sd.cylinder(size, 2.0), eye, where))
        elif pick == 1:
            base = sd.union(base, sd.moved(sd.cylinder(size, float(rng.uniform(0.03, 0.3)), 0.01), eye, where))
        elif pick == 2:
            rib = np.array([rng.uniform(0.2, 0.7), 0.2 * size + 0.02, rng.uniform(0.02, 0.2)], np.float32)
            base = sd.union(base, sd.moved(sd.box(rib, 0.01), turn, where))
        elif pick == 3:
            slot = np.array([rng.uniform(0.2, 0.9), 0.2 * size + 0.02, rng.uniform(0.02, 0.15)], np.float32)
            base = sd.difference(base, sd.moved(sd.box(slot, 0.01), turn, where))
        elif pick == 4:
            ring = sd.moved(sd.torus(size + 0.1, float(rng.uniform(0.02, 0.07))), eye, where)
            base = sd.union(base, ring) if rng.random() < 0.5 else sd.difference(base, ring)
        else:
            base = sd.smooth_union(base, sd.moved(sd.superquadric(size * _vector(rng, 0.5, 1), 2.0), turn, where), 0.1)
    return base


def _assembly(rng: np.random.Generator) -> Solid:
    """Two to four primitives in any pose, joined sharply, with fillets, or one cut from the others."""
    body = sd.moved(_primitive(rng, 0.85), random_rotation(rng), np.zeros(3, np.float32))
    for _ in range(rng.integers(1, 4)):
        part = sd.moved(_primitive(rng, float(rng.uniform(0.2, 0.6))), random_rotation(rng), _vector(rng, -0.55, 0.55))
        mode = rng.random()
        if mode < 0.4:
            body = sd.union(body, part)
        elif mode < 0.75:
            body = sd.smooth_union(body, part, float(rng.uniform(0.05, 0.3)))
        else:
            body = sd.difference(body, part)
    return body


def _ring(rng: np.random.Generator) -> Solid:
    """Washers, nuts, tyres, bagels: a body of revolution or a prism with a hole."""
    hole = float(rng.uniform(0.15, 0.4))
    if rng.random() < 0.5:
        tube = float(rng.uniform(0.2, 0.38))
        squash = np.diag([1.0, 1.0, 1 / rng.uniform(0.6, 1.0)]).astype(np.float32)
        round_ring = sd.torus(0.95 - tube, tube)
        return lambda p: np.asarray(round_ring(p @ squash) * np.float32(0.6), np.float32)
    half = float(rng.uniform(0.1, 0.5))
    outer = sd.prism(6, 0.8, half) if rng.random() < 0.5 else sd.cylinder(0.9, half, 0.04)
    return sd.difference(outer, sd.cylinder(hole, 2.0), sd.cone(hole, hole + 0.15, half + 1e-3))


def _blob(rng: np.random.Generator) -> Solid:
    """Smoothly joined ellipsoids (fruit, food, castings)."""
    body = sd.superquadric(_vector(rng, 0.45, 0.85), float(rng.choice([2.0, 2.5, 3.5])))
    for _ in range(rng.integers(0, 5)):
        part = sd.superquadric(_vector(rng, 0.12, 0.45), 2.0)
        body = sd.smooth_union(body, sd.moved(part, random_rotation(rng), _vector(rng, -0.6, 0.6)), 0.25)
    return body


def waves(rng: np.random.Generator, x: F32, y: F32, low: float, high: float, terms: int = 8) -> F32:
    """Random smooth field of unit variance: ``terms`` plane waves of ``low`` to ``high`` cycles a unit."""
    out = np.zeros_like(x)
    for _ in range(terms):
        frequency, angle = 2 * np.pi * rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
        out += np.cos(frequency * (np.cos(angle) * x + np.sin(angle) * y) + rng.uniform(0, 2 * np.pi)).astype(x.dtype)
    return np.asarray(out * np.sqrt(2 / terms), x.dtype)


def _relief(rng: np.random.Generator, x: F32, y: F32) -> F32:
    """Depth (S, S) of a relief over the image plane, NaN outside of its outline."""
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    outline = 0.85 + 0.08 * np.cos(rng.integers(2, 7) * angle + rng.uniform(0, 6)) * rng.integers(0, 2)
    inside = r < outline if rng.random() < 0.6 else (np.abs(x) < rng.uniform(0.5, 0.9)) & (np.abs(y) < 0.8)
    z = rng.uniform(0, 0.12) * waves(rng, x, y, 0.1, rng.uniform(0.5, 2.0))
    z += rng.choice([0.0, 0.3]) * np.square(r)
    for _ in range(rng.integers(1, 7)):
        cx, cy = rng.uniform(-0.6, 0.6, 2)
        size, height = rng.uniform(0.05, 0.3), rng.uniform(-0.15, 0.15)
        pick = rng.integers(4)
        turn = rng.uniform(0, np.pi)
        along = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy)
        d = np.hypot(x - cx, y - cy)
        if pick == 0:
            z += height * np.exp(-0.5 * np.square(d / size))
        elif pick == 1:
            z += height * (np.abs(d - size) < 0.05)
        elif pick == 2:
            z += height * np.clip(along / rng.uniform(0.01, 0.2), 0, 1)
        else:
            z += 0.3 * height * np.sign(np.cos(along * rng.uniform(10, 40)))
    z += x * rng.uniform(-0.4, 0.4) + y * rng.uniform(-0.4, 0.4)
    return np.where(inside, DISTANCE + z, np.nan).astype(np.float32)


def local_features(rng: np.random.Generator, x: F32, y: F32, valid: Bool, extent: float, most: int = 6) -> F32:
    """Depth offset (S, S) of dents, bumps, scratches and patches of roughness: heights of 0.3 to 3 % of ``extent``."""
    out = np.zeros_like(x)
    rows, cols = np.nonzero(valid)
    for _ in range(rng.integers(0, most + 1)):
        at = rng.integers(len(rows))
        dx, dy = x - x[rows[at], cols[at]], y - y[rows[at], cols[at]]
        size = extent * np.exp(rng.uniform(np.log(0.01), np.log(0.08)))
        height = extent * np.exp(rng.uniform(np.log(0.003), np.log(0.03))) * rng.choice([-1, 1])
        turn, squash = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
        u, v = np.cos(turn) * dx + np.sin(turn) * dy, (np.cos(turn) * dy - np.sin(turn) * dx) / squash
        d = np.hypot(u, v) / size
        pick = rng.integers(5)
        if pick == 0:
            out += height * np.exp(-0.5 * d * d)
        elif pick == 1:
            out += height * np.clip(1.5 - d, 0, 1)
        elif pick == 2:
            out += height * (d < 1)
        elif pick == 3:  # scratch
            out += height * np.exp(-0.5 * np.square(v / (0.15 * size))) * (np.abs(u) < 3 * size)
        else:
            out += 0.3 * height * waves(rng, x / extent, y / extent, 5, 25, 5) * (d < 2)
    return out


def sensor(rng: np.random.Generator, clean: F32, valid: Bool, extent: float, noise: float) -> tuple[F32, Bool]:
    """Noise along the depth axis (``noise`` of the extent, partly correlated between neighbours), and dropouts at depth
    edges, in random pixels and in a spot: ``(xyz, valid)``."""
    size = valid.shape[0]
    fine = rng.standard_normal((size, size), dtype=np.float32)
    coarse = np.repeat(np.repeat(rng.standard_normal((size // 4, size // 4), dtype=np.float32), 4, 0), 4, 1)
    share = rng.uniform(0, 0.4)
    xyz = clean.copy()
    xyz[..., 2] += noise * extent * (np.sqrt(1 - share) * fine + np.sqrt(share) * coarse)
    keep = valid.copy()
    if rng.random() < 0.5:
        keep &= rng.random(valid.shape) > rng.uniform(0, 0.03)
    if rng.random() < 0.5:
        z = np.where(valid, clean[..., 2], 1e3)
        jump = np.maximum(np.abs(np.diff(z, axis=0, append=z[-1:])), np.abs(np.diff(z, axis=1, append=z[:, -1:])))
        keep &= (jump < 0.05 * extent) | (rng.random(valid.shape) < 0.3)
    if rng.random() < 0.3:
        row, col = rng.integers(0, size, 2)
        grid = np.arange(size)
        keep &= np.hypot(grid[:, None] - row, grid[None] - col) > rng.uniform(2, 12)
    xyz[~keep] = 0
    return xyz, keep


FAMILIES = ("plate", "assembly", "ring", "blob", "relief")


def draw(seed: int, *, size: int = GRID, noise: float | None = None, features: bool = True) -> View:
    """The view of a seed. Same seed and arguments, same arrays.

    Parameters
    ----------
    seed : any non-negative integer.
    size : side of the grid, pixels (a multiple of 4).
    noise : standard deviation of the depth noise as a share of the extent; None draws from 0 to 0.3 %.
    features : whether the surface carries small dents, scratches and roughness.
    """
    rng = np.random.default_rng(seed)
    while True:
        view = _attempt(rng, size, noise, features)
        if view is not None:
            return view


def _attempt(rng: np.random.Generator, size: int, noise: float | None, features: bool) -> View | None:
    kind = str(rng.choice(FAMILIES, p=[0.3, 0.25, 0.1, 0.15, 0.2]))
    reach = float(rng.uniform(0.95, 1.35))
    steps = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * reach
    y, x = (np.asarray(v, np.float32) for v in np.meshgrid(steps, steps, indexing="ij"))
    if kind == "relief":
        depth = _relief(rng, x, y)
        clean = np.stack([x, y, depth], -1)
    else:
        body = {"plate": _plate, "assembly": _assembly, "ring": _ring, "blob": _blob}[kind](rng)
        tilt = float(rng.choice([0.15, 0.7, np.pi]))
        body = sd.moved(body, random_rotation(rng, tilt), np.array([*rng.uniform(-0.1, 0.1, 2), DISTANCE], np.float32))
        rays = np.zeros((size * size, 3), np.float32)
        rays[:, 2] = 1
        origins = np.stack([x.ravel(), y.ravel(), np.zeros(size * size, np.float32)], -1)
        if rng.random() < 0.5:  # pinhole: the same grid on the plane through the body's middle
            rays = origins + np.array([0, 0, DISTANCE], np.float32)
            rays /= np.linalg.norm(rays, axis=1, keepdims=True)
            origins = np.zeros_like(origins)
        t = sd.trace(body, origins, rays, DISTANCE - 1.7, DISTANCE + 1.7)
        clean = (origins + t[:, None] * rays).reshape(size, size, 3)
    valid = np.isfinite(clean[..., 2])
    if valid.sum() < MIN_VALID * (size / GRID) ** 2:
        return None
    seen = clean[valid]
    extent = float(np.linalg.norm(np.ptp(seen[:, :2], axis=0)))
    if features:
        z = clean[..., 2] + local_features(rng, x, y, valid, extent)
        if rng.random() < 0.3:
            z = z + extent * rng.uniform(0, 0.004) * waves(rng, x / np.float32(extent), y / np.float32(extent), 3, 20)
        clean = np.concatenate([clean[..., :2], z[..., None]], -1)
    clean = np.where(valid[..., None], clean, 0).astype(np.float32)
    if noise is None:
        noise = 0.0 if rng.random() < 0.15 else float(np.exp(rng.uniform(np.log(0.0002), np.log(0.003))))
    xyz, keep = sensor(rng, clean, valid, extent, noise)
    if keep.sum() < MIN_VALID * (size / GRID) ** 2:
        return None
    return View(xyz.astype(np.float32), np.where(keep[..., None], clean, 0).astype(np.float32), keep, kind)
