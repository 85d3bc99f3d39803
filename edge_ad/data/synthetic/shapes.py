"""The classes of parts: each function draws one part's maps, with the variation that production leaves.

Albedo follows geometry (turned faces carry rings, cast webs grain, edges wear bright) so that the look
of a place can be told from its shape and the reverse; what varies between good parts is small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_ad.data.synthetic.grid import (
    CELLS,
    Field,
    PartMaps,
    Rng,
    arc_text,
    band,
    blur,
    coordinates,
    flat_text,
    noise,
    paint,
    step,
)
from edge_ad.frame import F32

RGB = tuple[float, float, float]


def _solid(colour: RGB) -> F32:
    return np.full((CELLS, CELLS, 3), colour, dtype=np.float32)


def _tolerance(rng: Rng, value: float, relative: float = 0.008) -> float:
    return float(value * (1 + np.clip(rng.normal(0, relative), -2.5 * relative, 2.5 * relative)))


def _edge_wear(height: F32) -> F32:
    """1 on convex edges, 0 on flats: where a finish wears and shines."""
    return np.asarray(np.clip((height - blur(height, 0.9)) / np.float32(1.2), 0, 1), dtype=np.float32)


def _rings(r: F32, pitch: float, rng: Rng) -> F32:
    """Turning marks: a sum of two ring patterns in [-1, 1]; phase and pitch drift from part to part."""
    pitch = _tolerance(rng, pitch, 0.03)
    phase = rng.uniform(0, 2 * np.pi)
    wave = np.sin(r * np.float32(2 * np.pi / pitch) + np.float32(phase))
    slow = np.sin(r * np.float32(2 * np.pi / (pitch * 3.7)) + np.float32(phase * 2))
    return np.asarray(0.65 * wave + 0.35 * slow, dtype=np.float32)


def _finish(
    height: F32, bare: F32, gloss: Field, ink: F32, ink_colour: RGB, core: RGB, rng: Rng, spread: float = 0.04
) -> PartMaps:
    """Add what every part has: fine grain, a batch's own tone, and the print with its own coverage."""
    part = height > 0.5
    tone = 1 + rng.normal(0, spread) + rng.normal(0, 0.3 * spread, 3)
    fine = 0.03 * noise(rng, 0.35) + 0.02 * noise(rng, 2.5)
    bare = np.clip(bare * tone.astype(np.float32) * (1 + fine)[..., None], 0.01, 0.95).astype(np.float32)
    height = np.where(part, height, 0).astype(np.float32)
    ink = np.clip(ink * part * (rng.uniform(0.85, 0.97) + 0.04 * noise(rng, 0.8)), 0, 1).astype(np.float32)
    albedo = paint(bare, ink_colour, ink)
    return PartMaps(height, albedo, gloss.astype(np.float32), ink, bare, np.asarray(core, dtype=np.float32), height)


def gear(geometry: Rng, texture: Rng) -> PartMaps:
    """Steel spur gear: 20 teeth, cast web with six lightening holes, turned hub with a keyway."""
    x, y, r, phi = coordinates()
    tip, root = _tolerance(geometry, 41.0), _tolerance(geometry, 35.5)
    rim, hub = _tolerance(geometry, 12.5, 0.015), _tolerance(geometry, 17.0, 0.015)
    tooth = np.clip(1.7 * np.cos(20 * phi), -1, 1)
    outline = np.asarray((tip + root) / 2 + (tip - root) / 2 * tooth, dtype=np.float32)
    web = band(r, 16.5, 28.5, 1.6)
    h = rim * step(outline - r, 0.7) - 0.9 * step(r - np.float32(tip - 1.6), 2.4)
    h = h - web * (4.2 + 0.12 * noise(texture, 1.6)) + (hub - rim) * step(np.float32(14.5) - r, 1.0)
    lobes = np.hypot(
        r * np.cos(np.mod(phi, np.pi / 3) - np.pi / 6) - 22.5, r * np.sin(np.mod(phi, np.pi / 3) - np.pi / 6)
    )
    open_cells = np.maximum(step(3.9 - lobes, 0.6), step(np.float32(_tolerance(geometry, 7.0)) - r, 0.6))
    open_cells = np.maximum(open_cells, step(1.7 - np.abs(y), 0.5) * step(10.0 - x, 0.5) * (x > 0))
    h = np.asarray(h * (1 - open_cells), dtype=np.float32)
    turned = np.asarray(1 - web, dtype=np.float32)
    rings = _rings(r, 1.5, texture) * turned
    bare = _solid((0.31, 0.32, 0.33)) * (1 + 0.16 * rings)[..., None]
    bare = paint(bare, (0.17, 0.14, 0.115), web * (0.9 + 0.05 * noise(texture, 1.2)))
    bare = paint(bare, (0.66, 0.66, 0.65), 0.5 * _edge_wear(h))
    bare = paint(bare, (0.11, 0.10, 0.10), step(r - np.float32(root), 1.5) * 0.45)
    ink = np.maximum(arc_text("Z20 M4", 29.4, 34.2, 0.3, 1.75, 1.1), arc_text("C45 +H", 29.4, 34.2, 3.4, 1.75, 1.1))
    return _finish(h, bare, 0.25 + 0.4 * turned, ink, (0.05, 0.05, 0.06), (0.5, 0.5, 0.5), texture)


def hex_nut(geometry: Rng, texture: Rng) -> PartMaps:
    """Zinc-plated flange nut with a threaded bore, embossed grade marks and a printed flange."""
    _, _, r, phi = coordinates()
    flat, flange = _tolerance(geometry, 27.0), _tolerance(geometry, 41.0)
    top = _tolerance(geometry, 21.0, 0.012)
    apothem = r * np.cos(np.mod(phi + np.pi / 6, np.pi / 3) - np.pi / 6)
    hexagon = step(np.asarray(np.float32(flat) - apothem, dtype=np.float32), 0.8)
    base = (9.6 - 2.2 * np.clip((r - 29) / 12, 0, 1)) * step(np.float32(flange) - r, 0.8)
    chamfer = np.clip(r - np.float32(flat - 1.2), 0, None) * 0.62
    emboss = np.maximum(arc_text("10", 19.2, 25.6, 0.2, 0.6, 1.3), arc_text("A2", 19.2, 25.6, 2.3, 0.6, 1.3))
    emboss = np.maximum(emboss, arc_text("EA", 19.2, 25.6, 4.4, 0.6, 1.3))
    nut = top - chamfer + 0.7 * blur(emboss, 0.3)
    bore = _tolerance(geometry, 13.5)
    nut = nut - np.clip(np.float32(bore + 3.6) - r, 0, None) * (1.0 + 0.35 * np.sin(2 * np.pi * r / 1.35 + phi))
    h = np.asarray((base + (nut - base) * hexagon) * step(r - np.float32(bore), 0.5), dtype=np.float32)
    zinc = 0.10 * _rings(r, 1.9, texture) * (1 - hexagon)
    bare = _solid((0.36, 0.37, 0.39)) * (1 + zinc)[..., None]
    bare = paint(bare, (0.42, 0.34, 0.17), (1 - hexagon) * np.float32(0.75 + texture.normal(0, 0.04)))
    bare = paint(bare, (0.24, 0.25, 0.27), step(np.float32(bore + 3.4) - r, 0.8) * 0.8)
    bare = paint(bare, (0.70, 0.70, 0.70), 0.55 * _edge_wear(h) + 0.25 * emboss)
    ink = np.zeros_like(h)
    for k in range(3):
        ink = np.maximum(ink, arc_text("ISO 4161", 33.8, 39.4, 0.25 + k * 2.0944, 1.55, 1.1))
    return _finish(h, bare, 0.45 + 0.2 * hexagon, ink, (0.06, 0.07, 0.16), (0.42, 0.42, 0.43), texture)


def cookie(geometry: Rng, texture: Rng) -> PartMaps:
    """Chocolate-chip cookie: a lumpy dome, browner where it is thin, with a dozen chips in it."""
    x, y, r, phi = coordinates()
    radius = _tolerance(geometry, 40.0, 0.015)
    outline = np.full_like(r, radius)
    for k in range(2, 9):
        outline += np.asarray(
            geometry.normal(0, 0.9 / k) * np.cos(k * phi + geometry.uniform(0, 6.28)), dtype=np.float32
        )
    q = np.clip(r / outline, 0, 1.2)
    crown = _tolerance(geometry, 13.5, 0.025)
    lumps = 0.3 * noise(geometry, 5.0) + 0.2 * noise(geometry, 1.8)
    furrow = np.clip(0.22 - np.abs(noise(geometry, 9.0)), 0, None) / 0.22
    h = crown * np.sqrt(np.clip(1 - 0.75 * q**4, 0, 1)) + lumps - 0.7 * blur(furrow.astype(np.float32), 0.4)
    chips = np.zeros_like(r)
    wanted, placed = int(geometry.integers(11, 15)), 0
    centres: list[tuple[float, float]] = []
    for _ in range(300):
        cx, cy = geometry.uniform(-33, 33, 2)
        if np.hypot(cx, cy) < 32 and all(np.hypot(cx - a, cy - b) > 10 for a, b in centres):
            centres.append((cx, cy))
            a, b, t = geometry.uniform(2.6, 3.7), geometry.uniform(2.6, 3.7), geometry.uniform(0, np.pi)
            dx, dy = x - np.float32(cx), y - np.float32(cy)
            u, v = dx * np.cos(t) + dy * np.sin(t), dy * np.cos(t) - dx * np.sin(t)
            chips = np.maximum(chips, np.clip(1.25 - (u / a) ** 2 - (v / b) ** 2, 0, 1).astype(np.float32))
            placed += 1
            if placed == wanted:
                break
    h = np.asarray((h + 1.5 * np.sqrt(chips)) * step(outline - r, 0.8), dtype=np.float32)
    brown = np.clip((q - 0.62) / 0.4, 0, 1) ** 1.5
    bare = _solid((0.56, 0.36, 0.155))
    bare = paint(bare, (0.30, 0.145, 0.045), np.asarray(0.85 * brown, dtype=np.float32))
    bare = bare * np.clip(1 + 0.18 * lumps - 0.35 * furrow, 0.4, 1.4).astype(np.float32)[..., None]
    bare = bare * (1 + 0.07 * noise(texture, 0.7))[..., None]
    bare = paint(bare, (0.062, 0.028, 0.016), step(chips - np.float32(0.15), 0.25))
    gloss = 0.02 + 0.13 * (chips > 0.3)
    return _finish(h, bare, gloss, np.zeros_like(h), (0, 0, 0), (0.62, 0.46, 0.24), texture, 0.05)


def bottle_cap(geometry: Rng, texture: Rng) -> PartMaps:
    """Crimped crown cap: lacquered red, embossed and printed star, lettering around it."""
    _, _, r, phi = coordinates()
    radius, top = _tolerance(geometry, 39.0), _tolerance(geometry, 14.5, 0.012)
    flutes = np.cos(21 * phi)
    skirt = np.clip((r - 29.5) / (radius - 29.5), 0, 1)
    outline = np.asarray(radius + 1.5 * flutes, dtype=np.float32)
    h = top + 1.0 * band(r, 26.8, 29.0, 1.2) - 7.6 * skirt**1.4 + 1.5 * flutes * skirt
    spoke = np.abs(np.mod(phi + np.pi / 5 + 0.3142, 2 * np.pi / 5) - np.pi / 5)
    star = step(np.asarray(11.0 - r * (np.cos(spoke) + 1.35 * np.sin(spoke)), dtype=np.float32), 0.6)
    ring = band(r, 23.4, 24.8, 0.5)
    h = np.asarray((h + 0.8 * blur(star, 0.4) + 0.45 * ring) * step(outline - r, 0.6), dtype=np.float32)
    lacquer = np.asarray([0.42, 0.035, 0.03]) * (1 + texture.normal(0, 0.05, 3))
    bare = _solid((float(lacquer[0]), float(lacquer[1]), float(lacquer[2])))
    bare = bare * (1 - 0.30 * skirt * (0.5 - 0.5 * flutes))[..., None].astype(np.float32)
    bare = paint(bare, (0.60, 0.58, 0.56), step(r - (outline - 1.3), 0.5) * 0.8)
    ink = np.maximum(star, ring)
    ink = np.maximum(ink, arc_text("ORIGINAL", 14.5, 21.5, 0.25, 2.3, 1.3))
    ink = np.maximum(ink, arc_text("BREW 0,5L", 14.5, 21.5, 3.4, 2.3, 1.3))
    return _finish(h, bare, np.full_like(h, 0.35), ink, (0.72, 0.68, 0.55), (0.52, 0.52, 0.53), texture)


def connector_plate(geometry: Rng, texture: Rng) -> PartMaps:
    """Moulded connector: a plate with brass eyelets, a raised 2 x 8 socket, ribs and white print."""
    x, y, _, _ = coordinates()
    half_x, half_y = _tolerance(geometry, 43.0, 0.006), _tolerance(geometry, 29.0, 0.006)
    outside = np.hypot(np.clip(np.abs(x) - half_x + 5, 0, None), np.clip(np.abs(y) - half_y + 5, 0, None))
    plate = step(np.asarray(5.0 - outside, dtype=np.float32), 0.7)
    h = _tolerance(geometry, 9.0, 0.012) * plate
    edge = np.minimum(25.5 - np.abs(x), 9.5 - np.abs(y + 1.0))
    block = step(np.asarray(edge, dtype=np.float32), 0.9)
    h = h + _tolerance(geometry, 8.0, 0.012) * block
    px, py = np.mod(x + 24.0, 6.0) - 3.0, np.abs(y + 1.0) - 4.2
    inside = (np.abs(x) < 24.0).astype(np.float32)
    socket = inside * step(np.asarray(1.75 - np.maximum(np.abs(px), np.abs(py)), dtype=np.float32), 0.4)
    pin = inside * step(np.asarray(0.95 - np.maximum(np.abs(px), np.abs(py)), dtype=np.float32), 0.3)
    h = h - 5.0 * socket + 3.4 * pin
    ribs = np.zeros_like(h)
    for cx in (-33.0, 33.0):
        rib = np.minimum(1.6 - np.abs(np.mod(y + 12.0, 6.0) - 3.0), np.minimum(5.2 - np.abs(x - cx), 11.5 - np.abs(y)))
        ribs = np.maximum(ribs, step(np.asarray(rib, dtype=np.float32), 0.6))
    h = h + 1.8 * ribs
    eyelet, hole = np.zeros_like(h), np.zeros_like(h)
    for cx in (-36.0, 36.0):
        for cy in (-22.0, 22.0):
            d = np.hypot(x - np.float32(cx), y - np.float32(cy))
            eyelet, hole = np.maximum(eyelet, band(d, 2.6, 5.0, 0.5)), np.maximum(hole, step(2.7 - d, 0.4))
    h = np.asarray((h + 1.3 * eyelet) * (1 - hole), dtype=np.float32)
    bare = _solid((0.035, 0.085, 0.145)) * (1 + 0.10 * noise(texture, 0.5))[..., None]
    bare = paint(bare, (0.028, 0.03, 0.034), block * 0.92)
    bare = paint(bare, (0.60, 0.42, 0.13), np.maximum(eyelet, pin))
    bare = paint(bare, (0.10, 0.16, 0.22), 0.5 * _edge_wear(h) * (1 - eyelet) * (1 - pin))
    ink = np.maximum(flat_text("X4 24V", -27.5, 23.5, 6.6, 1.3), flat_text("PE +", 9.0, 23.5, 6.6, 1.3))
    ink = np.maximum(ink, flat_text("CP-108 IP67", -25.0, -17.5, 6.0, 1.2))
    frame = np.abs(np.maximum(np.abs(x) - 27.3, np.abs(y + 1.0) - 11.4))
    ink = np.maximum(ink, step(np.asarray(0.55 - frame, dtype=np.float32), 0.3))
    gloss = 0.07 + 0.5 * np.maximum(eyelet, pin)
    return _finish(h, bare, gloss, ink, (0.66, 0.67, 0.66), (0.12, 0.17, 0.22), texture, 0.05)


def bearing(geometry: Rng, texture: Rng) -> PartMaps:
    """Deep-groove ball bearing: ground rings, nine balls in a brass cage, etched outer ring."""
    _, _, r, phi = coordinates()
    outer, bore = _tolerance(geometry, 42.0, 0.006), _tolerance(geometry, 13.0, 0.006)
    width = _tolerance(geometry, 14.5, 0.012)
    lands = np.maximum(band(r, 31.2, outer, 0.6), band(r, bore, 21.0, 0.6))
    chamfer = 0.7 * np.clip(np.maximum(r - (outer - 1.5), (bore + 1.5) - r), 0, None)
    shoulder = 1.3 * np.maximum(band(r, 31.2, 32.6, 0.5), band(r, 19.6, 21.0, 0.5))
    turn = geometry.uniform(0, 2 * np.pi)
    a = np.mod(phi + turn, 2 * np.pi / 9) - np.pi / 9
    d2 = (r * np.cos(a) - 26.1) ** 2 + (r * np.sin(a)) ** 2
    cage = np.asarray(band(r, 20.8, 31.4, 0.5) * (8.6 + 1.0 * np.cos(18 * (phi + turn))), dtype=np.float32)
    ball = step(np.asarray(4.5 - np.sqrt(d2), dtype=np.float32), 0.4)
    sphere = 8.2 + np.sqrt(np.clip(4.6**2 - d2, 0, None))
    h = np.asarray(np.maximum((width - chamfer - shoulder) * lands, cage), dtype=np.float32)
    h = np.asarray(h + (sphere - h) * ball, dtype=np.float32)
    bare = _solid((0.34, 0.35, 0.365)) * (1 + 0.15 * _rings(r, 1.3, texture) * lands)[..., None]
    bare = paint(bare, (0.40, 0.26, 0.08), band(r, 21.0, 31.2, 0.4) * (1 - ball))
    bare = paint(bare, (0.46, 0.47, 0.50), ball * 0.95)
    bare = paint(bare, (0.70, 0.70, 0.70), 0.4 * _edge_wear(h) * lands)
    ink = np.maximum(arc_text("6208 - C3", 33.4, 39.6, 0.4, 1.9, 1.2), arc_text("DE 2 X 7", 33.4, 39.6, 3.5, 1.9, 1.2))
    return _finish(h, bare, 0.35 + 0.3 * ball + 0.1 * lands, ink, (0.07, 0.07, 0.08), (0.5, 0.5, 0.5), texture)


BUILDERS: dict[str, Callable[[Rng, Rng], PartMaps]] = {
    "bearing": bearing,
    "bottle_cap": bottle_cap,
    "connector_plate": connector_plate,
    "cookie": cookie,
    "gear": gear,
    "hex_nut": hex_nut,
}
