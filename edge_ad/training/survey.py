"""A first look at the training frames: the scale of the points, and where good frames have depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_ad.data.dataset import Dataset
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.files import read_json
from edge_ad.frame import U8
from edge_ad.parallel import run_parallel
from edge_ad.presets import Preset
from edge_ad.runtime.geometry import frame_xyz
from edge_ad.runtime.point_input import radius
from edge_ad.runtime.preprocess import Preprocessor, Scene
from edge_ad.runtime.scene_check import SceneSetup
from edge_ad.training.features import Job, Track, silent

EXPECTED_SHARE = 0.95  # METHOD section 1


@dataclass(frozen=True)
class Survey:
    """What the training frames say about the set-up.

    points_scale_m : median over the training parts of the largest distance to the centroid, metres (1 where the preset
    does not use it). scenes : region of interest and, for a fixed pose, expected depth, by class.
    """

    points_scale_m: float
    scenes: dict[str, Scene]


@dataclass(frozen=True)
class _Look:
    """``radii``: one a part. ``known``: packed bits of (H, W), pixels with depth; ``shape``: (H, W)."""

    radii: tuple[float, ...]
    known: U8
    shape: tuple[int, int]


@dataclass(frozen=True)
class _Looker:
    preset: Preset
    pre: Preprocessor

    def __call__(self, job: Job) -> _Look | None:
        try:
            frame = job.frame(self.preset.geometry.pose)
            known = frame_xyz(frame)[..., 2] > 0
            radii: tuple[float, ...] = ()
            if self.preset.points.normalize == "fixed":
                samples = self.pre(frame, job.item.class_name).samples
                radii = tuple(
                    radius(s.xyz[s.valid]) for s in samples if int(s.valid.sum()) >= self.preset.limits.min_valid
                )
        except InvalidFrame:
            return None  # reported with its reason by the extraction
        return _Look(radii, np.packbits(known), frame.shape)


def survey(
    preset: Preset, dataset: Dataset, jobs: Sequence[Job], *, processes: int = 1, track: Track = silent
) -> Survey:
    """Look at the training frames where the preset needs it (``points.normalize`` or ``geometry.pose`` is ``fixed``).

    Raises
    ------
    EdgeAdError
        Frames of one class differ in size while the pose is fixed; no frame can be used.
    """
    names = sorted({j.item.class_name for j in jobs})
    scenes = {name: Scene(roi=dataset.roi(name), setup=_setup(dataset, name)) for name in names}
    fixed_pose = preset.geometry.pose == "fixed"
    if not fixed_pose and preset.points.normalize != "fixed":
        return Survey(1.0, scenes)
    radii: list[float] = []
    counts: dict[str, tuple[np.ndarray, int]] = {}
    looker = _Looker(preset, Preprocessor(preset.geometry, preset.rgb.mean, preset.rgb.std, scenes))
    looks = run_parallel(looker, jobs, processes=processes)
    for job, look in zip(jobs, track(looks, len(jobs), "survey"), strict=True):
        if look is not None:
            radii += look.radii
            # Variations of a frame have dropouts of their own: they say nothing about the camera.
            if fixed_pose and job.seed is None:
                _count(counts, job.item.class_name, look)
    if preset.points.normalize == "fixed" and not radii:
        raise EdgeAdError(
            "no training frame has a usable part",
            "parts that stand out from the background",
            "check the preset's geometry table, for instance --set geometry.background=none",
        )
    for name, (count, frames) in counts.items():
        scenes[name] = replace(scenes[name], expected_depth=count >= EXPECTED_SHARE * frames)
    return Survey(float(np.median(radii)) if radii else 1.0, scenes)


def _setup(dataset: Dataset, name: str) -> SceneSetup | None:
    path = dataset.scenes.get(name)
    return None if path is None else SceneSetup.from_json(read_json(path), str(path))


def _count(counts: dict[str, tuple[np.ndarray, int]], name: str, look: _Look) -> None:
    h, w = look.shape
    known = np.unpackbits(look.known, count=h * w).reshape(h, w)
    total, frames = counts.get(name, (np.zeros((h, w), dtype=np.int64), 0))
    if total.shape != known.shape:
        raise EdgeAdError(
            f"class '{name}': frames of {w} x {h} and of {total.shape[1]} x {total.shape[0]} pixels",
            "one size, as geometry.pose = fixed says",
            "use --set geometry.pose=free",
        )
    counts[name] = (total + known, frames + 1)
