"""The picture a person looks at: camera image, heat, regions, lost depth, and a banner with the decision."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, U8, Bool, Frame, Region, Result

MIN_WIDTH, MAX_WIDTH = 640, 1280  # of the picture; small frames are scaled up so that the text is readable
MAX_LABELS = 12  # the largest regions get a label, every region gets a box
HEAT_FROM = 0.5  # of the threshold: below it the image stays as it is
HEAT_TO = 2.0  # of the threshold: here the heat has its last colour
HEAT_ALPHA = 0.6

Colour = tuple[int, int, int]  # RGB
DECISION_COLOURS: dict[str, Colour] = {"normal": (24, 130, 56), "anomalous": (196, 28, 28), "invalid": (214, 137, 0)}
AMBER: Colour = (214, 137, 0)
CONTOUR: Colour = (255, 255, 255)
BOX: Colour = (255, 60, 60)
LOST: Colour = (80, 200, 255)
BANNER: Colour = (28, 30, 34)
TEXT: Colour = (240, 240, 240)
DIM: Colour = (170, 175, 182)
FONT = cv2.FONT_HERSHEY_SIMPLEX
MM2 = "mm\N{SUPERSCRIPT TWO}" if int(cv2.__version__.split(".")[0]) >= 5 else "mm2"  # OpenCV 4 draws ASCII alone
HEAD_HEIGHT, LINE_HEIGHT, NOTE_LINES = 66, 22, 2  # the banner has one height, so that pictures make a video


def draw_overlay(frame: Frame, result: Result) -> U8:
    """Draw one result over its frame.

    Returns
    -------
    (H', W', 3) uint8, RGB: the camera image scaled to a width of 640 to 1280 pixels, with a banner above it.
        Heat: the map over its threshold. White line: outline of the mask. Red boxes: anomalous regions with
        their area. Blue hatching: depth that should be there and is not. Never raises for a result without a map.
    """
    image = _base_image(frame)
    if result.decision == "invalid" and result.map is None:
        image = (image * 0.55).astype(np.uint8)
    size = (image.shape[1], image.shape[0])
    zoom = size[0] / frame.shape[1]
    if result.map is not None:
        values = cv2.resize(result.map.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        image = _heat(image, np.asarray(values, np.float32), result)
    lost_regions = [r for r in result.regions if r.kind == "lost-depth"]
    if lost_regions:
        image = _hatch(image, _resize_mask(_missing_depth(frame, lost_regions), size))
    if result.mask is not None:
        outline, _ = cv2.findContours(
            _resize_mask(result.mask, size).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(image, outline, -1, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.drawContours(image, outline, -1, CONTOUR, 1, cv2.LINE_AA)
    _draw_regions(image, result.regions, zoom)
    return np.vstack([_banner(result, frame, image.shape[1]), image])


def heat_colours(ratio: NDArray[np.floating[Any]]) -> U8:
    """(...,) map over threshold -> (..., 3) RGB; black-body colours, brightest from ``HEAT_TO`` on."""
    level = np.clip((ratio - HEAT_FROM) / (HEAT_TO - HEAT_FROM), 0.0, 1.0)
    grey = (64 + level * 175).astype(np.uint8)  # without the colour map's black and white ends
    return np.asarray(cv2.applyColorMap(grey.reshape(-1, 1), cv2.COLORMAP_INFERNO))[:, 0, ::-1].reshape(*ratio.shape, 3)


def _base_image(frame: Frame) -> U8:
    height, width = frame.shape
    target = min(max(width, MIN_WIDTH), MAX_WIDTH)
    size = (target, max(1, round(height * target / width)))
    if size == (width, height):
        return frame.colour.copy()
    method = cv2.INTER_AREA if target < width else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame.colour, size, interpolation=method), np.uint8)


def _resize_mask(mask: Bool, size: tuple[int, int]) -> Bool:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0


def _heat(image: U8, values: F32, result: Result) -> U8:
    values = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
    reference = result.threshold if result.threshold > 0 else float(values.max(initial=0.0))
    if not (np.isfinite(reference) and reference > 0):
        return image
    ratio = values / reference
    alpha = np.clip((ratio - HEAT_FROM) / (1.0 - HEAT_FROM), 0.0, 1.0)[..., None] * HEAT_ALPHA
    return np.rint(image * (1.0 - alpha) + heat_colours(ratio) * alpha).astype(np.uint8)


def _missing_depth(frame: Frame, regions: list[Region]) -> Bool:
    """(H, W) pixels without depth inside the lost-depth regions' boxes."""
    missing = np.zeros(frame.shape, np.bool_)
    z = frame.xyz[..., 2] if frame.xyz is not None else frame.depth
    for region in regions:
        x0, y0, x1, y1 = region.box
        if z is None:
            missing[y0:y1, x0:x1] = True
        else:
            part = z[y0:y1, x0:x1]
            missing[y0:y1, x0:x1] |= ~(np.isfinite(part) & (part > 0))
    return missing


def _hatch(image: U8, where: Bool) -> U8:
    rows, cols = np.arange(where.shape[0])[:, None], np.arange(where.shape[1])
    stripes = (rows + cols) % 10 < 4
    alpha = np.where(where, np.where(stripes, 0.75, 0.2), 0.0)[..., None]
    return np.rint(image * (1.0 - alpha) + np.array(LOST) * alpha).astype(np.uint8)


def _draw_regions(image: U8, regions: tuple[Region, ...], zoom: float) -> None:
    largest = sorted(regions, key=lambda r: r.area_px, reverse=True)
    boxes = []
    for region in largest:
        x0, y0, x1, y1 = (round(v * zoom) for v in region.box)
        boxes.append((max(x0 - 3, 0), max(y0 - 3, 0), min(x1 + 2, image.shape[1] - 1), min(y1 + 2, image.shape[0] - 1)))
    for region, (x0, y0, x1, y1) in zip(largest, boxes):
        colour = LOST if region.kind == "lost-depth" else BOX
        cv2.rectangle(image, (x0, y0), (x1, y1), (0, 0, 0), 4, cv2.LINE_AA)
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, 2, cv2.LINE_AA)
    taken: list[tuple[int, int, int, int]] = []
    for region, box in zip(largest[:MAX_LABELS], boxes):
        _label(image, region, box, taken)


def _label(image: U8, region: Region, box: tuple[int, int, int, int], taken: list[tuple[int, int, int, int]]) -> None:
    """The region's area on a plate above its box, below it or inside it: the first place that is free."""
    text = f"{_number(region.area_mm2)} {MM2}" if region.area_mm2 > 0 else f"{region.area_px} px"
    if region.kind == "lost-depth":
        text = f"no depth {text}"
    text_size, baseline = cv2.getTextSize(text, FONT, 0.5, 1)
    width, height = text_size[0] + 8, text_size[1] + baseline + 4
    x0, y0, _, y1 = box
    x = min(max(x0, 0), max(image.shape[1] - width, 0))
    for y in (y0 - height, y1, y0):
        place = (x, y, x + width, y + height)
        if y < 0 or y + height > image.shape[0] or any(_overlap(place, other) for other in taken):
            continue
        taken.append(place)
        lost = region.kind == "lost-depth"
        cv2.rectangle(image, (x, y), (x + width, y + height), LOST if lost else BOX, -1)
        ink = (0, 0, 0) if lost else (255, 255, 255)
        cv2.putText(image, text, (x + 4, y + height - baseline - 2), FONT, 0.5, ink, 1, cv2.LINE_AA)
        return


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _banner(result: Result, frame: Frame, width: int) -> U8:
    """(height, width, 3): decision, health, score against threshold, class and name; a line for the reasons."""
    banner = np.full((HEAD_HEIGHT + NOTE_LINES * LINE_HEIGHT + 6, width, 3), BANNER, np.uint8)
    decision = result.decision.upper()
    plate = int(cv2.getTextSize(decision, FONT, 0.9, 2)[0][0]) + 28
    cv2.rectangle(banner, (0, 0), (plate, HEAD_HEIGHT - 1), DECISION_COLOURS.get(result.decision, AMBER), -1)
    degraded = result.health != "ok"
    cv2.putText(banner, decision, (14, 36 if degraded else 42), FONT, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    if degraded:
        cv2.putText(banner, f"health: {result.health}", (15, 57), FONT, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    left = plate + 16
    name = result.name or frame.name
    what = name if name.startswith(result.class_name) else f"{result.class_name}   {name}"
    _text(banner, what, (left, 24), width - left - 12, 0.55, TEXT)
    if np.isfinite(result.score):
        bar = min(220, max(80, (width - left) // 3))
        _score_bar(banner, result, left, bar)
        numbers = f"score {result.score:.4g}"
        if np.isfinite(result.threshold):
            numbers += f" / threshold {result.threshold:.4g}"
        _text(banner, numbers, (left + bar + 14, 53), width - left - bar - 24, 0.5, TEXT)
    cv2.line(banner, (0, HEAD_HEIGHT), (width, HEAD_HEIGHT), (60, 64, 70), 1)
    notes = _wrap("; ".join(result.reasons), width - 28, 0.48, NOTE_LINES)
    warning = DIM if result.decision == "normal" else (255, 200, 90)
    lines = [(note, warning) for note in notes] + [(_facts(result), DIM)]
    for i, (line, colour) in enumerate(lines[:NOTE_LINES]):
        _text(banner, line, (14, HEAD_HEIGHT + 18 + i * LINE_HEIGHT), width - 28, 0.48, colour)
    return banner


def _facts(result: Result) -> str:
    """e.g. ``2 regions, largest 9071 mm2   lost depth 3.1 %   41 ms``."""
    facts = []
    if result.map is not None:
        count = len(result.regions)
        facts.append("1 region" if count == 1 else f"{count or 'no'} regions")
        if count:
            facts[-1] += f", largest {_number(max(r.area_mm2 for r in result.regions))} {MM2}"
        facts.append(f"lost depth {100 * result.lost_share:.1f} %")
    total = result.times_ms.get("total", sum(result.times_ms.values()))
    if total > 0:
        facts.append(f"{total:.0f} ms")
    return "   ".join(facts)


def _score_bar(banner: U8, result: Result, left: int, width: int) -> None:
    """Colour scale of the heat from 0 to twice the threshold; a triangle stands at the score."""
    if not (np.isfinite(result.threshold) and result.threshold > 0):
        return
    ratio = np.linspace(0.0, HEAT_TO, width, dtype=np.float32)
    colours = np.where((ratio < HEAT_FROM)[:, None], np.array((70, 74, 80), np.uint8), heat_colours(ratio))
    banner[44:54, left : left + width] = colours[None]
    tick = left + round(width / HEAT_TO)
    cv2.line(banner, (tick, 41), (tick, 57), TEXT, 1)
    at = left + round(min(max(result.score / result.threshold, 0.0), HEAT_TO) / HEAT_TO * (width - 1))
    cv2.fillPoly(banner, [np.array([[at - 5, 36], [at + 5, 36], [at, 44]], np.int32)], TEXT, cv2.LINE_AA)


def _text(image: U8, text: str, at: tuple[int, int], room: int, size: float, colour: Colour) -> None:
    """One line, cut with an ellipsis where it does not fit into ``room`` pixels."""
    if _width(text, size) > room:
        while text and _width(text + "...", size) > room:
            text = text[:-1]
        text = text.rstrip() + "..." if text else ""
    cv2.putText(image, text, at, FONT, size, colour, 1, cv2.LINE_AA)


def _width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def _wrap(text: str, room: int, size: float, lines: int) -> list[str]:
    """At most ``lines`` lines of whole words; the last takes the rest, however long."""
    wrapped: list[str] = []
    words = text.split()
    while words and len(wrapped) < lines - 1:
        count = 1
        while count < len(words) and _width(" ".join(words[: count + 1]), size) <= room:
            count += 1
        wrapped.append(" ".join(words[:count]))
        words = words[count:]
    return [*wrapped, " ".join(words)] if words else wrapped
