"""One synthetic part, good or spoilt, from a class and a seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from edge_ad.data.synthetic.defects import DEPTH_STEP_MM, KINDS, spoil
from edge_ad.data.synthetic.grid import PartMaps, Rng
from edge_ad.data.synthetic.render import INTRINSICS, SIZE, Light, Pose, View, random_light, random_pose, render
from edge_ad.data.synthetic.sensor import colour_image, point_cloud
from edge_ad.data.synthetic.shapes import BUILDERS
from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, U8, Bool, Intrinsics

CLASSES: tuple[str, ...] = tuple(BUILDERS)
COLOUR_STEP = 8.0  # grey levels of 255: a change of colour above this counts as defective
SHARES = (0.003, 0.10)  # the smallest and largest defect, as a share of the part's visible area
_ATTEMPTS = 8


@dataclass(frozen=True)
class DefectInfo:
    """kind and modality; share: defective pixels over visible pixels of the part; the largest change of
    height in mm and of colour in grey levels, without noise."""

    kind: str
    modality: str
    share: float
    depth_mm: float
    colour_levels: float


@dataclass(frozen=True)
class SyntheticPart:
    """colour (H, W, 3) uint8 RGB; xyz (H, W, 3) float32 metres, zeros where missing; gt (H, W) bool;
    part (H, W) bool, the pixels where the part is seen; defect is None on a good part."""

    class_name: str
    colour: U8
    xyz: F32
    gt: Bool
    part: Bool
    intrinsics: Intrinsics
    defect: DefectInfo | None


@dataclass(frozen=True)
class _Scene:
    pose: Pose
    light: Light
    mat: F32

    def view(self, maps: PartMaps) -> View:
        return render(maps, self.pose, self.light, self.mat)


def _stream(name: str, class_name: str, seed: int | tuple[int, ...]) -> Rng:
    """An independent generator for each purpose, so that a defect changes nothing else."""
    words = (seed,) if isinstance(seed, int) else seed
    return np.random.default_rng([zlib.crc32(f"{name}/{class_name}".encode()), *(abs(int(w)) for w in words)])


def kinds_for(class_name: str) -> tuple[str, ...]:
    """The kinds of defects that a class can have (no print fault where nothing is printed)."""
    return tuple(k for k, v in KINDS.items() if not (v.needs_ink and class_name == "cookie"))


def _mat(rng: Rng) -> F32:
    """(H, W) brightness of the supporting mat: a woven texture with slow shades."""
    fine = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), dtype=np.float32), (0, 0), 0.9)
    slow = cv2.resize(rng.standard_normal((5, 5), dtype=np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(1 + 0.10 * fine + 0.04 * slow, dtype=np.float32)


def _difference(view: View, twin: View) -> tuple[Bool, float, float]:
    depth = np.abs(view.distance - twin.distance)
    colour = np.abs(view.colour - twin.colour).max(axis=2)
    gt = (depth > DEPTH_STEP_MM) | (colour > COLOUR_STEP)
    return gt, float(depth.max()), float(colour.max())


def synthesize(class_name: str, seed: int | tuple[int, ...], defect: str | None = None) -> SyntheticPart:
    """Make one part. The same class and seed give the same good part, with or without a defect.

    Parameters
    ----------
    class_name : one of :data:`CLASSES`.
    seed : a number or a tuple of numbers, all >= 0.
    defect : a kind from ``DEFECTS``, or None for a good part. Its ground truth is where the colour or
        depth without noise differs from the good twin's by more than 8 of 255 or 0.25 mm.
    """
    if class_name not in BUILDERS:
        raise EdgeAdError(f"class '{class_name}'", "one of " + ", ".join(CLASSES))
    if defect is not None and defect not in kinds_for(class_name):
        raise EdgeAdError(f"defect '{defect}' for class '{class_name}'", "one of " + ", ".join(kinds_for(class_name)))
    maps = BUILDERS[class_name](_stream("geometry", class_name, seed), _stream("texture", class_name, seed))
    scene_rng = _stream("scene", class_name, seed)
    scene = _Scene(random_pose(scene_rng), random_light(scene_rng), _mat(scene_rng))
    view = twin = scene.view(maps)
    part = twin.height > 0.5
    gt = np.zeros((SIZE, SIZE), dtype=np.bool_)
    info = None
    if defect is not None:
        defect_rng = _stream("defect", class_name, seed)
        view, gt, info = _spoilt(maps, scene, twin, int(part.sum()), defect, defect_rng)
    sensor_seed = _stream("sensor", class_name, seed)
    colour = colour_image(view, sensor_seed)
    xyz = point_cloud(view, sensor_seed)
    return SyntheticPart(class_name, colour, xyz, gt, part, INTRINSICS, info)


def _spoilt(
    maps: PartMaps, scene: _Scene, twin: View, part_pixels: int, kind: str, rng: Rng
) -> tuple[View, Bool, DefectInfo]:
    """Draw the defect until its seen share lies in SHARES; the wanted share is log-uniform."""
    spec = KINDS[kind]
    wanted = float(np.exp(rng.uniform(np.log(spec.smallest), np.log(spec.largest))))
    asked = wanted
    for _ in range(_ATTEMPTS):
        view = scene.view(spoil(maps, kind, rng, asked))
        gt, depth, colour = _difference(view, twin)
        share = float(gt.sum()) / part_pixels
        if SHARES[0] <= share <= SHARES[1]:
            return view, gt, DefectInfo(kind, spec.modality, share, depth, colour)
        # Another place is drawn as well: on an edge or a dark spot the same size may show little.
        asked = float(np.clip(asked * (1.4 if share < SHARES[0] else 0.6), spec.smallest, spec.largest))
    raise EdgeAdError(f"no {kind} of 0.3 % to 10 % of the part's area in {_ATTEMPTS} attempts", "", "try another seed")
