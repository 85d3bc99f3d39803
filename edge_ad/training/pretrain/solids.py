"""Bodies as signed distance functions, their combinations, and their depth along camera rays (sphere tracing).

A *solid* maps points (N, 3) float32 to a lower bound (N,) of their distance to the surface, negative inside. The
formulas are the usual ones (Quilez, "distance functions"); those that are bounds and not exact only cost steps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_ad.frame import F32

Solid = Callable[[F32], F32]


def box(half: F32, rounding: float = 0.0) -> Solid:
    """Box of the given half sides (3,), edges rounded inwards."""
    inner = np.maximum(half - rounding, 1e-4).astype(np.float32)

    def distance(p: F32) -> F32:
        q = np.abs(p) - inner
        outside = np.sqrt(np.square(np.maximum(q, 0)).sum(1))
        return np.asarray(outside + np.minimum(q.max(1), 0) - rounding, np.float32)

    return distance


def cylinder(radius: float, half: float, rounding: float = 0.0) -> Solid:
    """Cylinder along z with flat ends."""

    def distance(p: F32) -> F32:
        radial = np.hypot(p[:, 0], p[:, 1]) - (radius - rounding)
        axial = np.abs(p[:, 2]) - (half - rounding)
        outside = np.hypot(np.maximum(radial, 0), np.maximum(axial, 0))
        return np.asarray(outside + np.minimum(np.maximum(radial, axial), 0) - rounding, np.float32)

    return distance


def cone(bottom: float, top: float, half: float) -> Solid:
    """Frustum along z: radius ``bottom`` at -half, ``top`` at +half."""
    slope = (top - bottom) / (2 * half)
    cosine = 1.0 / np.sqrt(1 + slope * slope)

    def distance(p: F32) -> F32:
        lateral = (np.hypot(p[:, 0], p[:, 1]) - (bottom + slope * (p[:, 2] + half))) * cosine
        return np.asarray(np.maximum(lateral, np.abs(p[:, 2]) - half), np.float32)

    return distance


def torus(ring: float, tube: float) -> Solid:
    """Torus around z."""

    def distance(p: F32) -> F32:
        return np.asarray(np.hypot(np.hypot(p[:, 0], p[:, 1]) - ring, p[:, 2]) - tube, np.float32)

    return distance


def superquadric(half: F32, exponent: float) -> Solid:
    """p-norm ball of half axes (3,); exponent 2 an ellipsoid, larger towards a box. Needs exponent >= 2."""
    smallest = float(half.min())

    def distance(p: F32) -> F32:
        q = np.abs(p) / half
        largest = np.maximum(q.max(1, keepdims=True), 1e-6)
        norm = largest[:, 0] * ((q / largest) ** exponent).sum(1) ** (1 / exponent)
        return np.asarray((norm - 1) * smallest, np.float32)

    return distance


def prism(sides: int, radius: float, half: float) -> Solid:
    """Regular prism along z (hexagon nuts): ``radius`` is the distance from the axis to a side."""
    step = 2 * np.pi / sides

    def distance(p: F32) -> F32:
        angle = np.arctan2(p[:, 1], p[:, 0])
        folded = angle - step * np.round(angle / step)
        side = np.hypot(p[:, 0], p[:, 1]) * np.cos(folded) - radius
        return np.asarray(np.maximum(side, np.abs(p[:, 2]) - half), np.float32)

    return distance


def gear(teeth: int, radius: float, tooth: float, half: float) -> Solid:
    """Gear along z, ``tooth`` the height of its trapezoid-like teeth above and below ``radius``."""
    steep = 2.5
    bound = 1.0 / np.sqrt(1 + (tooth * teeth * steep / radius) ** 2)

    def distance(p: F32) -> F32:
        wave = np.tanh(steep * np.cos(teeth * np.arctan2(p[:, 1], p[:, 0])))
        side = (np.hypot(p[:, 0], p[:, 1]) - radius - tooth * wave) * bound
        return np.asarray(np.maximum(side, np.abs(p[:, 2]) - half), np.float32)

    return distance


def moved(solid: Solid, rotation: F32, offset: F32) -> Solid:
    """The solid rotated by (3, 3), then shifted by (3,)."""
    turn, shift = rotation.astype(np.float32), offset.astype(np.float32)
    return lambda p: solid(np.asarray((p - shift) @ turn, np.float32))


def union(*solids: Solid) -> Solid:
    """All of them together."""

    def distance(p: F32) -> F32:
        out = solids[0](p)
        for solid in solids[1:]:
            out = np.minimum(out, solid(p))
        return out

    return distance


def smooth_union(first: Solid, second: Solid, width: float) -> Solid:
    """Union with a fillet of about ``width`` (polynomial smooth minimum)."""

    def distance(p: F32) -> F32:
        a, b = first(p), second(p)
        h = np.maximum(width - np.abs(a - b), 0) / width
        return np.asarray(np.minimum(a, b) - h * h * (width / 4), np.float32)

    return distance


def difference(solid: Solid, *cuts: Solid) -> Solid:
    """The solid without the cuts."""

    def distance(p: F32) -> F32:
        out = solid(p)
        for cut in cuts:
            out = np.maximum(out, -cut(p))
        return out

    return distance


def trace(solid: Solid, origins: F32, rays: F32, near: float, far: float, steps: int = 48) -> F32:
    """Distance along each unit ray to the first hit, NaN where there is none.

    ``origins``, ``rays`` (N, 3); the search runs from ``near`` to ``far``. A ray counts as a hit within
    1e-3 of the surface (in the solid's units) once it has converged or run out of steps.
    """
    t = np.full(len(rays), near, np.float32)
    gap = np.full(len(rays), np.inf, np.float32)
    active = np.arange(len(rays))
    for _ in range(steps):
        d = solid(origins[active] + t[active, None] * rays[active])
        gap[active] = d
        t[active] += np.maximum(d, 0)
        active = active[(d > 2e-4) & (t[active] < far)]
        if not len(active):
            break
    return np.where((gap < 1e-3) & (t < far), t, np.nan).astype(np.float32)
