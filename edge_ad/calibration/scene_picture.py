"""The calibrated scene as one picture: the camera's view with region, tiles and belt beside the heights above the
plane."""

from __future__ import annotations

import cv2
import numpy as np

from edge_ad.calibration.scene import SceneReport
from edge_ad.frame import U8

REGION, TILE, BELT, INK = (60, 220, 90), (255, 190, 40), (60, 130, 255), (235, 235, 235)
SHOWN_M = 0.05
"""Heights are coloured from -50 mm to +50 mm about the plane."""


def draw_scene(report: SceneReport) -> U8:
    """(H', W', 3) uint8 RGB: both views side by side, and the measured figures below."""
    height, width = report.roi.shape
    scale = max(1, round(480 / height))
    left = cv2.resize(report.colour, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    outside = cv2.resize((~report.roi).astype(np.uint8), (width * scale, height * scale)) > 0
    left[outside] = left[outside] // 3
    contours, _ = cv2.findContours(report.roi.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(left, [c * scale for c in contours], -1, REGION, 2)
    for y0, x0, y1, x1 in report.setup.tiles:
        cv2.rectangle(left, (x0 * scale, y0 * scale), (x1 * scale - 1, y1 * scale - 1), TILE, 1)
    motion = np.asarray(report.setup.belt_px)
    if motion.any():
        rows, cols = np.nonzero(report.roi)
        middle = np.array([cols.mean(), rows.mean()]) * scale
        tip = middle + motion / np.hypot(*motion) * 0.2 * width * scale
        cv2.arrowedLine(left, _point(middle), _point(tip), BELT, 3, cv2.LINE_AA, tipLength=0.2)
    heights = report.setup.plane.height(report.xyz)
    level = np.clip((heights / SHOWN_M + 1) / 2, 0, 1)
    right = cv2.applyColorMap((level * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    right[report.xyz[..., 2] <= 0] = 0
    right = cv2.resize(right, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    cv2.drawContours(right, [c * scale for c in contours], -1, REGION, 1)
    lines = [*report.lines(), *(f"warning: {w}" for w in report.warnings)]
    lines.append("right: height above the plane, -50 mm (blue) to +50 mm (red); black: no depth")
    panel = np.full((14 + 20 * len(lines), left.shape[1] + right.shape[1], 3), 30, np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(panel, line, (8, 22 + 20 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
    return np.ascontiguousarray(np.vstack([np.hstack([left, right]), panel]))


def _point(p: np.ndarray) -> tuple[int, int]:
    return int(round(float(p[0]))), int(round(float(p[1])))
