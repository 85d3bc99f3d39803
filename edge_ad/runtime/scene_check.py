"""The calibrated scene of a fixed camera: its supporting plane as a test per pixel, and whether it still holds.

Made by ``edge-ad calibrate scene`` (:mod:`edge_ad.calibration.scene`); travels as one JSON document.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import F32, U8, Bool
from edge_ad.runtime.geometry import Plane, fit_plane

SCHEMA = 1
SEEN_STRIDE = 8
"""Every n-th pixel of every n-th row is looked at when the plane is checked."""
SEARCH_M = 0.005


@dataclass(frozen=True)
class SceneSetup:
    """What is known of one fixed set-up. Lengths in metres, pixels of the colour grid, tiles as (y0, x0, y1, x1).

    plane : of the support, normal towards the camera. seen : ((H+7)//8, (W+7)//8) bool, where the plane is visible
    between the parts. least_seen : smallest share of ``seen`` that lay on the plane in a calibration frame. band_m :
    nearest and farthest depth that belongs here. noise_m : standard deviation over time of a pixel on the plane.
    flatness_m : RMS of the plane's pixels about it. mm_per_pixel : at the middle of the region. belt_px : motion in
    pixels a frame (x, y), zero where nothing moves. smallest_mm : (across, deep) of the smallest defect that can show.
    shift_limit_m, tilt_limit_deg : a plane that is further off than that is a moved camera. notes : free, for people.
    """

    height: int
    width: int
    plane: Plane
    seen: Bool
    least_seen: float
    band_m: tuple[float, float]
    noise_m: float
    flatness_m: float
    mm_per_pixel: float
    smallest_mm: tuple[float, float]
    belt_px: tuple[float, float] = (0.0, 0.0)
    tiles: tuple[tuple[int, int, int, int], ...] = ()
    tile_overlap: float = 0.0
    shift_limit_m: float = 0.003
    tilt_limit_deg: float = 0.5
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` reads them back."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        seen = base64.b64encode(np.packbits(self.seen).tobytes()).decode()
        plane = {"normal": list(self.plane.normal), "offset": self.plane.offset, "inliers": self.plane.inliers}
        return {"schema": SCHEMA, **fields, "plane": plane, "seen": seen, "tiles": [list(t) for t in self.tiles]}

    @staticmethod
    def from_json(values: Any, where: str) -> SceneSetup:
        """Raises EdgeAdError for anything that ``calibrate scene`` did not write."""
        remedy = "run edge-ad calibrate scene again"
        if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
            raise EdgeAdError(f"{where} is no scene", "a file that edge-ad calibrate scene wrote", remedy)
        if values["schema"] > SCHEMA:
            raise EdgeAdError(f"{where}: schema {values['schema']}", f"at most {SCHEMA}", "update edge-ad")
        try:
            h, w = int(values["height"]), int(values["width"])
            p = values["plane"]
            normal = tuple(float(v) for v in p["normal"])
            rows, cols = -(-h // SEEN_STRIDE), -(-w // SEEN_STRIDE)
            bits = np.frombuffer(base64.b64decode(values["seen"], validate=True), np.uint8)
            if h > 0 and w > 0 and len(bits) != -(-rows * cols // 8):
                raise ValueError(f"seen has {len(bits)} bytes")
            seen = np.unpackbits(bits, count=rows * cols).astype(np.bool_).reshape(rows, cols)
            setup = SceneSetup(
                height=h,
                width=w,
                plane=Plane((normal[0], normal[1], normal[2]), float(p["offset"]), float(p["inliers"])),
                seen=seen,
                least_seen=float(values["least_seen"]),
                band_m=_pair(values["band_m"]),
                noise_m=float(values["noise_m"]),
                flatness_m=float(values["flatness_m"]),
                mm_per_pixel=float(values["mm_per_pixel"]),
                smallest_mm=_pair(values["smallest_mm"]),
                belt_px=_pair(values["belt_px"]),
                tiles=tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in values["tiles"]),
                tile_overlap=float(values["tile_overlap"]),
                shift_limit_m=float(values["shift_limit_m"]),
                tilt_limit_deg=float(values["tilt_limit_deg"]),
                notes=dict(values["notes"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as e:
            raise EdgeAdError(
                f"{where}: missing or broken field ({e})", "as calibrate scene wrote it", remedy
            ) from None
        if not (h > 0 and w > 0 and abs(math.hypot(*normal) - 1) < 1e-3 and math.isfinite(setup.plane.offset)):
            raise EdgeAdError(f"{where}: size {w} x {h}, normal {normal}", "a size > 0 and a unit normal", remedy)
        return setup

    def to_array(self) -> U8:
        """The JSON document as (n,) uint8, for an ``.npz``."""
        return np.frombuffer(json.dumps(self.to_json(), sort_keys=True).encode(), np.uint8)

    @staticmethod
    def from_array(array: NDArray[Any], where: str) -> SceneSetup:
        """Read :meth:`to_array` back."""
        try:
            values = json.loads(array.astype(np.uint8).tobytes())
        except ValueError:
            values = None
        return SceneSetup.from_json(values, where)

    def centre_ray(self) -> NDArray[np.float64]:
        """Direction to the plane's point below the camera, unit: shifts of the camera are told along it."""
        return -np.asarray(self.plane.normal, np.float64)


def same_setup(a: SceneSetup, b: SceneSetup | None) -> bool:
    """Whether two classes stand before one calibrated camera."""
    return b is not None and (a is b or a.to_json() == b.to_json())


def _pair(values: Any) -> tuple[float, float]:
    a, b = values
    return float(a), float(b)


@dataclass(frozen=True)
class SceneState:
    """The supporting plane as one frame shows it.

    visible : whether enough of it is in view to say anything. shift_m : along the calibrated normal, positive when the
    plane is farther from the camera. tilt_deg : between the two normals. near_share : share of the frame's depth that
    is nearer than the working distance band.
    """

    visible: bool
    shift_m: float = 0.0
    tilt_deg: float = 0.0
    near_share: float = 0.0


def look(setup: SceneSetup, coarse: F32) -> SceneState:
    """Find the supporting plane in every ``SEEN_STRIDE``-th pixel of a frame's cloud, starting from where it was."""
    z = coarse[..., 2]
    depth = z > 0
    near = float((z[depth] < setup.band_m[0]).mean()) if depth.any() else 0.0
    points = coarse[setup.seen & depth]
    enough = max(12, round(0.5 * min(0.3, setup.least_seen) * setup.seen.sum()))
    if len(points) < enough:
        return SceneState(False, near_share=near)
    tolerance = max(3 * setup.noise_m, 2 * setup.flatness_m, 0.0015)
    plane = _follow(setup.plane, points, tolerance, enough)
    if plane is None:
        # Not where it was: search it everywhere. A large part is no plane of support unless most of the view is it.
        try:
            found = fit_plane(points, max(SEARCH_M, tolerance), 120)
        except InvalidFrame:
            return SceneState(False, near_share=near)
        if found.inliers < 0.5:
            return SceneState(False, near_share=near)
        plane = found
    middle = setup.centre_ray() * setup.plane.offset  # the point of the old plane right below the camera
    normal = np.asarray(plane.normal, np.float64)
    shift = float(normal @ middle + plane.offset)
    cosine = float(np.clip(normal @ np.asarray(setup.plane.normal), -1, 1))
    return SceneState(True, shift, math.degrees(math.acos(cosine)), near)


def _follow(start: Plane, points: F32, tolerance: float, enough: int) -> Plane | None:
    """Least squares over the points near ``start``, again from each result: a small tilt grows its own inliers."""
    plane, p = start, points.astype(np.float64)
    for _ in range(8):
        normal = np.asarray(plane.normal)
        near = np.abs(p @ normal + plane.offset) < tolerance
        if int(near.sum()) < enough:
            return None
        kept = p[near]
        mean = kept.mean(axis=0)
        covariance = np.cov((kept - mean).T)
        values, vectors = np.linalg.eigh(covariance)
        if values[1] <= 4 * values[0]:  # a line or a heap, no plane
            return None
        turned = vectors[:, 0] if vectors[:, 0] @ normal > 0 else -vectors[:, 0]
        offset = -float(turned @ mean)
        moved = abs(offset - plane.offset) + float(np.abs(turned - normal).max())
        plane = Plane((float(turned[0]), float(turned[1]), float(turned[2])), offset, float(near.mean()))
        if moved < 1e-6:
            break
    return plane


def check(setup: SceneSetup, shape: tuple[int, int], coarse: F32) -> tuple[str, ...]:
    """Why a frame does not belong to the calibrated scene; empty where it does.

    Parameters
    ----------
    shape : (H, W) of the frame. coarse : every ``SEEN_STRIDE``-th row and column of its cloud (H, W, 3), metres.

    Notes
    -----
    A plane that the parts hide cannot be checked, and nothing is said then.
    """
    if shape != (setup.height, setup.width):
        h, w = shape
        return (f"a frame of {w} x {h} pixels in a scene of {setup.width} x {setup.height}",)
    state = look(setup, coarse)
    reasons = []
    if state.visible and (abs(state.shift_m) > setup.shift_limit_m or state.tilt_deg > setup.tilt_limit_deg):
        limits = f"{setup.shift_limit_m * 1e3:.1f} mm, {setup.tilt_limit_deg:.1f} degrees"
        where = "farther" if state.shift_m > 0 else "nearer"
        reasons.append(
            f"the camera moved: the supporting plane is {abs(state.shift_m) * 1e3:.1f} mm {where} and tilted by "
            f"{state.tilt_deg:.1f} degrees (limits {limits})"
        )
    if state.near_share > 0.02:
        reasons.append(
            f"{state.near_share:.0%} of the depth is nearer than the working distance of {setup.band_m[0] * 1e3:.0f} mm"
        )
    return tuple(reasons)
