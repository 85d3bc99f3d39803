"""Kinds of defects. Each takes a part's maps and an area to fill and gives the maps of the spoilt part.

A colour defect touches the albedo alone. A depth defect touches the height alone and leaves
``colour_height``, so that its colour is exactly that of the good part. The others touch both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge_ad.data.synthetic.grid import PITCH_MM, PartMaps, Rng, blur, coordinates, noise, paint, step
from edge_ad.data.synthetic.marks import SAFE_MM, blob, centre, path, stroke
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32

DEPTH_STEP_MM = 0.25  # a change of height above this counts as defective

Apply = Callable[[PartMaps, Rng, float], PartMaps]


@dataclass(frozen=True)
class DefectKind:
    """modality: ``"colour" | "depth" | "both"``; smallest, largest: shares of the part's visible area."""

    modality: str
    smallest: float
    largest: float
    apply: Apply
    needs_ink: bool = False


def _recolour(maps: PartMaps, colour: F32 | tuple[float, float, float], weight: F32) -> PartMaps:
    return replace(maps, albedo=paint(maps.albedo, colour, weight * maps.mask))


def _deform(maps: PartMaps, change: F32) -> PartMaps:
    """Change the height of the part but not what the colour camera sees."""
    height = np.where(maps.mask, np.maximum(maps.height + change, 0.6), maps.height).astype(np.float32)
    return replace(maps, height=height)


def _cut(maps: PartMaps, height: F32) -> PartMaps:
    """Change the height that both cameras see."""
    return replace(maps, height=height, colour_height=height)


def _carve(maps: PartMaps, depth: F32) -> PartMaps:
    """Take ``depth`` mm away from the part, but not through it."""
    return _cut(maps, np.where(maps.mask, np.maximum(maps.height - depth, 0.6), 0).astype(np.float32))


# Colour only ------------------------------------------------------------------------------------------------


def stain(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A dried liquid: darker (lighter on dark parts), tinted, with a denser rim."""
    q = blob(rng, *centre(maps, rng), area)
    density = step(np.asarray(1 - q, dtype=np.float32), 0.2) * (0.7 + 0.3 * np.exp(-(((q - 0.9) / 0.12) ** 2)))
    density = density * np.clip(0.85 + 0.2 * noise(rng, 2.0), 0.4, 1.1)
    local = float(np.median(maps.albedo[(q < 1) & maps.mask])) if ((q < 1) & maps.mask).any() else 0.3
    tint = np.asarray(rng.uniform([0.8, 0.65, 0.4], [1.0, 0.9, 0.8]), dtype=np.float32)
    strength = float(rng.uniform(0.4, 0.65))
    soiled = maps.albedo * tint * (1 - strength) if local > 0.12 else maps.albedo * 0.6 + 0.16 * tint
    weight = np.clip(density, 0, 1).astype(np.float32)[..., None] * maps.mask[..., None]
    return replace(maps, albedo=np.asarray(maps.albedo + weight * (soiled - maps.albedo), dtype=np.float32))


def heat_tint(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A scorched spot: straw, then purple, then blue towards its centre; bleached on dark material."""
    q = blob(rng, *centre(maps, rng), area, 0.1)
    heat = np.clip(1.15 - q, 0, 1)[..., None]
    straw, purple, blue = np.asarray([[1.1, 0.8, 0.42], [0.75, 0.48, 0.62], [0.42, 0.55, 0.95]], dtype=np.float32)
    tint = np.where(heat < 0.5, straw + (purple - straw) * heat * 2, purple + (blue - purple) * (heat * 2 - 1))
    weight = np.clip(heat * 4, 0, 1) * float(rng.uniform(0.65, 0.95)) * maps.mask[..., None]
    lift = 0.05 * (1 - np.clip(maps.albedo.mean(axis=2, keepdims=True) / 0.12, 0, 1))
    change = weight * (maps.albedo * tint + lift - maps.albedo)
    return replace(maps, albedo=np.asarray(maps.albedo + change, dtype=np.float32))


def print_fault(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """The print near one place is missing, or smeared along one direction."""
    x, y, _, _ = coordinates()
    x0, y0 = centre(maps, rng, (maps.ink > 0.5) & (maps.height > SAFE_MM))
    reach = np.hypot(x - x0, y - y0)
    smear = rng.random() < 0.5
    ink_colour = _ink_colour(maps)
    if smear:
        length = max(int(rng.uniform(3.0, 6.0) / PITCH_MM), 3)
        kernel = np.zeros((2 * length + 1, 2 * length + 1), dtype=np.float32)
        a = float(rng.uniform(0, np.pi))
        end = (round(length + length * np.cos(a)), round(length + length * np.sin(a)))
        cv2.line(kernel, (length, length), end, 1.0, 2)
        smeared = np.clip(1.6 * cv2.filter2D(maps.ink, -1, kernel / kernel.sum()), 0, 0.95).astype(np.float32)
        changed = np.abs(smeared - maps.ink)
    else:
        smeared, changed = np.zeros_like(maps.ink), maps.ink
    candidates = np.sort(reach[(changed > 0.15) & maps.mask])
    if len(candidates) == 0:
        return maps
    limit = float(candidates[min(int(area / PITCH_MM**2), len(candidates) - 1)])
    near = step(np.asarray(limit - reach, dtype=np.float32), 0.5)
    ink = np.asarray((maps.ink + near * (smeared - maps.ink)) * maps.mask, dtype=np.float32)
    return replace(maps, ink=ink, albedo=paint(maps.bare, ink_colour, ink))


def _ink_colour(maps: PartMaps) -> F32:
    """The print's own colour, solved from where it covers well."""
    full = maps.ink > 0.6
    if not full.any():
        return np.zeros(3, dtype=np.float32)
    c = maps.ink[full][:, None]
    return np.asarray(np.median((maps.albedo[full] - (1 - c) * maps.bare[full]) / c, axis=0), dtype=np.float32)


def fibre(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A thin hair or thread lying flat: too thin for the depth camera."""
    width = float(rng.uniform(0.9, 1.5))
    total = area / width
    count = 1 + int(total > 90)
    paths = [path(maps, rng, total / count, 0.05, 0.06) for _ in range(count)]
    dark = float(np.median(maps.albedo[maps.mask])) < 0.15
    light_yarns, dark_yarns = (
        [(0.75, 0.72, 0.65), (0.75, 0.6, 0.1), (0.7, 0.3, 0.3)],
        [
            (0.02, 0.02, 0.03),
            (0.03, 0.07, 0.4),
            (0.03, 0.2, 0.06),
        ],
    )
    yarn = (light_yarns if dark else dark_yarns)[int(rng.integers(3))]
    return _recolour(maps, yarn, np.clip(1.8 * stroke(paths, width), 0, 0.92).astype(np.float32))


# Depth only -------------------------------------------------------------------------------------------------


def _swell(maps: PartMaps, rng: Rng, area: float, sign: float) -> PartMaps:
    amplitude = float(rng.uniform(1.5, 4.0))
    # The rim where the change falls below DEPTH_STEP_MM encloses the area asked for.
    rim = 1 - np.sqrt(DEPTH_STEP_MM / amplitude)
    q = blob(rng, *centre(maps, rng), area / rim, 0.12)
    return _deform(maps, np.asarray(sign * amplitude * np.clip(1 - q**2, 0, 1) ** 2, dtype=np.float32))


def dent(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A rounded hollow of 1.5 to 4.0 mm."""
    return _swell(maps, rng, area, -1.0)


def bulge(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A rounded swelling of 1.5 to 4.0 mm."""
    return _swell(maps, rng, area, 1.0)


def sunken(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A region that stands 1.2 to 2.6 mm too low, level within itself."""
    q = blob(rng, *centre(maps, rng), area)
    radius = float(np.sqrt(area / np.pi))
    return _deform(maps, np.asarray(-float(rng.uniform(1.2, 2.6)) * step((1 - q) * radius, 1.2), dtype=np.float32))


def warp(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A side of the part bent up beyond a straight line, by 2 to 4 mm at its tip."""
    x, y, _, _ = coordinates()
    a = float(rng.uniform(0, 2 * np.pi))
    along = np.asarray(x * np.cos(a) + y * np.sin(a), dtype=np.float32)
    ranked = np.sort(along[maps.mask])[::-1]
    amplitude = float(rng.uniform(2.0, 4.0))
    start = float(ranked[min(int(area * 1.1 / PITCH_MM**2), len(ranked) - 1)])
    lever = np.clip((along - start) / max(float(ranked[0]) - start, 1.0), 0, 1)
    return _deform(maps, np.asarray(amplitude * lever, dtype=np.float32))


# Both -------------------------------------------------------------------------------------------------------


def scratch(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A groove of about 1 mm with bright flanks."""
    width = float(rng.uniform(1.1, 1.9))
    line = stroke([path(maps, rng, area / width, 0.02, 0.015)], width)
    cut = _carve(maps, float(rng.uniform(1.0, 1.6)) * line)
    bright = np.clip(maps.core * 1.25 + 0.04, 0, 0.9)
    marked = _recolour(cut, bright.astype(np.float32), np.clip(1.5 * line, 0, 0.8).astype(np.float32))
    return replace(marked, gloss=np.asarray(maps.gloss + 0.3 * line, dtype=np.float32))


def crack(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A jagged dark gap of 2 to 4 mm with a side branch."""
    width = float(rng.uniform(1.0, 1.5))
    total = area / width
    paths = [path(maps, rng, 0.75 * total, 0.5, 0.02)]
    if len(paths[0]) > 6:
        fork = paths[0][len(paths[0]) // 2]
        shift = path(maps, rng, 0.25 * total, 0.5, 0.02)
        paths.append(shift - shift[0] + fork)
    gap = np.clip(1.6 * stroke(paths, width), 0, 1).astype(np.float32)
    cut = _carve(maps, float(rng.uniform(2.0, 4.0)) * gap)
    return _recolour(cut, maps.core * 0.12, np.clip(gap, 0, 0.9).astype(np.float32))


def chip(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """Material broken away at an edge, 2 to 5 mm deep; the fracture shows the inside."""
    solid = (maps.height > SAFE_MM).astype(np.uint8)
    edge = (solid > 0) & (cv2.erode(solid, np.ones((7, 7), np.uint8)) == 0)
    q = blob(rng, *centre(maps, rng, edge), area * 1.9, 0.25)
    radius = float(np.sqrt(area * 1.9 / np.pi))
    bite = step((1 - q) * radius, 1.0)
    depth = float(rng.uniform(2.0, 5.0)) * bite * np.clip(0.8 + 0.25 * noise(rng, 1.5), 0.3, 1.3)
    fracture = np.clip(1 + 0.18 * noise(rng, 0.6), 0.5, 1.5)[..., None] * maps.core
    cut = _recolour(
        _carve(maps, np.asarray(depth, dtype=np.float32)),
        np.asarray(fracture, dtype=np.float32),
        (0.9 * bite).astype(np.float32),
    )
    return replace(cut, gloss=np.asarray(maps.gloss * (1 - 0.8 * bite), dtype=np.float32))


def debris(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """Something foreign lying on the part, 1.5 to 4 mm high."""
    q = blob(rng, *centre(maps, rng), area, 0.22)
    lump = np.sqrt(np.clip(1 - q**2, 0, 1)) * float(rng.uniform(1.5, 4.0))
    on = (q < 1).astype(np.float32)
    # It bridges what lies below it: its underside rests on the smoothed surface.
    rest = np.maximum(maps.height, blur(maps.height, 1.0) - 0.5) if area > 20 else maps.height
    height = np.where(on > 0, rest + lump * np.clip(1 + 0.08 * noise(rng, 1.2), 0.7, 1.3), maps.height)
    choices = [(0.30, 0.19, 0.09), (0.06, 0.06, 0.065), (0.55, 0.53, 0.50), (0.08, 0.22, 0.34), (0.50, 0.28, 0.10)]
    colour = np.asarray(choices[int(rng.integers(len(choices)))], dtype=np.float32)
    grain = np.clip(1 + 0.12 * noise(rng, 0.6), 0.6, 1.4)[..., None] * colour
    return _recolour(_cut(maps, height.astype(np.float32)), np.asarray(grain, dtype=np.float32), on * np.float32(0.97))


def hole(maps: PartMaps, rng: Rng, area: float) -> PartMaps:
    """A blind round hole or blow-hole of 2.5 to 4 mm, dark inside."""
    radius = float(np.sqrt(area / np.pi))
    to_edge = cv2.distanceTransform((maps.height > SAFE_MM).astype(np.uint8), cv2.DIST_L2, 5) * PITCH_MM
    q = blob(rng, *centre(maps, rng, to_edge > min(radius, 0.8 * float(to_edge.max()))), area, 0.05)
    pit = step((1 - q) * radius, 0.6)
    cut = _carve(maps, float(rng.uniform(2.5, 4.0)) * pit)
    return _recolour(cut, maps.core * 0.35, (0.75 * pit).astype(np.float32))


KINDS: dict[str, DefectKind] = {
    "stain": DefectKind("colour", 0.004, 0.09, stain),
    "heat_tint": DefectKind("colour", 0.006, 0.09, heat_tint),
    "print_fault": DefectKind("colour", 0.004, 0.03, print_fault, needs_ink=True),
    "fibre": DefectKind("colour", 0.004, 0.03, fibre),
    "dent": DefectKind("depth", 0.005, 0.08, dent),
    "bulge": DefectKind("depth", 0.005, 0.08, bulge),
    "sunken": DefectKind("depth", 0.006, 0.08, sunken),
    "warp": DefectKind("depth", 0.025, 0.09, warp),
    "scratch": DefectKind("both", 0.004, 0.025, scratch),
    "crack": DefectKind("both", 0.004, 0.025, crack),
    "chip": DefectKind("both", 0.005, 0.06, chip),
    "debris": DefectKind("both", 0.004, 0.08, debris),
    "hole": DefectKind("both", 0.004, 0.03, hole),
}

DEFECTS: dict[str, str] = {name: kind.modality for name, kind in KINDS.items()}


def spoil(maps: PartMaps, kind: str, rng: Rng, share: float) -> PartMaps:
    """Apply one kind of defect to fill about ``share`` of the part's area."""
    if kind not in KINDS:
        raise EdgeAdError(f"defect '{kind}'", "one of " + ", ".join(KINDS))
    return KINDS[kind].apply(maps, rng, share * float(maps.mask.sum()) * PITCH_MM**2)
