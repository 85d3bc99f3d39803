"""Frozen features, computed once a frame and kept on disk.

One ``.safetensors`` file a frame, named after a hash of everything that its content depends on: the frame's own
pixels, the region of interest, the preset's geometry and encoder tables, the encoders' weights, the point scale. So a
second run, or one that was killed, computes only what is missing, and two configurations may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from edge_ad.data.augment import augment
from edge_ad.data.dataset import Item
from edge_ad.errors import InvalidFrame
from edge_ad.files import write_bytes
from edge_ad.frame import F32, I64, Frame
from edge_ad.models.build import assemble
from edge_ad.parallel import run_parallel
from edge_ad.presets import Preset
from edge_ad.runtime.point_input import prepare_points
from edge_ad.runtime.preprocess import Preprocessor, Scene

# Part of every cache key: to be raised when the content of a file changes for the same inputs.
# Fields that do not change what an encoder gives; the weights themselves are told by their digest.
_AFTER_THE_ENCODER = ("checkpoint", "standardize", "ridge", "residual_ridge", "lift")
CACHE_VERSION = 1
T = TypeVar("T")


class Track(Protocol):
    """Tells a person how far a loop is; :func:`edge_ad.cli.common.progress` is one."""

    def __call__(self, iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterable[T]:
        """Yield from ``iterable``."""


def silent(iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterable[T]:
    """A :class:`Track` that says nothing."""
    return iterable


@dataclass(frozen=True)
class Job:
    """One frame to be read, and the seed of its variation (None: as it is)."""

    item: Item
    seed: int | None = None

    @property
    def key(self) -> tuple[str, int | None]:
        """Tells the job apart from all others of a data set."""
        return self.item.name, self.seed

    def frame(self, pose: str) -> Frame:
        """Read the frame and vary it."""
        frame = self.item.frame()
        return frame if self.seed is None else augment(frame, self.seed, rotate=pose == "free")


@dataclass(frozen=True)
class Source:
    """Where the features of one sample lie: file, number within the file, the job's ``key``, number of valid pixels."""

    path: Path
    number: int
    class_name: str
    key: tuple[str, int | None]
    pixels: int


@dataclass(frozen=True)
class SampleFeatures:
    """Frozen features of one sample.

    rgb_tokens : (T, D_rgb) float32. point_tokens : (G, D_3d) float32. pixels : (P,) int64 flat indices of the valid
    pixels on the S x S grid. interp_index : (P, 3) int64 into the point tokens; interp_weight : (P, 3) float32.
    """

    rgb_tokens: F32
    point_tokens: F32
    pixels: I64
    interp_index: I64
    interp_weight: F32


@dataclass(frozen=True)
class Recipe:
    """What is the same for every frame of one extraction (sent once to each worker)."""

    preset: Preset
    scenes: dict[str, Scene]
    points_scale_m: float
    cache: Path
    checkpoints_dir: Path | None = None

    def preprocessor(self) -> Preprocessor:
        """The one preprocessing, with this recipe's scenes."""
        p = self.preset
        return Preprocessor(p.geometry, p.rgb.mean, p.rgb.std, self.scenes)


def load(source: Source) -> SampleFeatures:
    """Read one sample's features from the cache."""
    n = source.number
    with safe_open(source.path, framework="np") as file:
        return SampleFeatures(
            rgb_tokens=file.get_tensor(f"{n}.rgb_tokens"),
            point_tokens=file.get_tensor(f"{n}.point_tokens"),
            pixels=file.get_tensor(f"{n}.pixels").astype(np.int64),
            interp_index=file.get_tensor(f"{n}.interp_index").astype(np.int64),
            interp_weight=file.get_tensor(f"{n}.interp_weight"),
        )


def weights_digest(modules: Iterable[nn.Module]) -> str:
    """SHA-256 over names, shapes and bytes of all tensors: tells encoders apart whatever file they came from."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def frame_digest(frame: Frame) -> str:
    """SHA-256 over what a frame's features depend on: colour, depth or cloud, scale, intrinsics."""
    digest = hashlib.sha256(repr((frame.depth_scale_m, frame.intrinsics)).encode())
    for array in (frame.colour, frame.depth, frame.xyz):
        _digest_array(digest, array)
    return digest.hexdigest()


def _digest_array(digest: Any, array: NDArray[Any] | None) -> None:
    if array is None:
        digest.update(b"none")
    else:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)


def extract(
    recipe: Recipe, jobs: Sequence[Job], *, processes: int = 1, track: Track = silent
) -> tuple[list[Source], list[tuple[str, str]]]:
    """Compute or find the features of every frame.

    Returns
    -------
    The samples in the order of ``jobs`` (a frame with several parts gives several), and the frames that could not be
    used with their reasons. The result does not depend on ``processes``.
    """
    sources: list[Source] = []
    refused: list[tuple[str, str]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # in this process as in a worker: the same bits
    try:
        results = run_parallel(_Extractor(recipe), jobs, processes=processes)
        for job, result in zip(jobs, track(results, len(jobs), "features"), strict=True):
            if isinstance(result, str):
                refused.append((job.item.name, result))
            else:
                path, counts = result
                sources += [Source(path, i, job.item.class_name, job.key, n) for i, n in enumerate(counts)]
    finally:
        torch.set_num_threads(threads)
    return sources, refused


class _Extractor:
    """``job -> (file, valid pixels of each sample)`` or the reason why the frame cannot be used.

    The encoders are built at the first call, once a process.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._ready: tuple[nn.Module, nn.Module, Preprocessor, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "_ready": None}

    def _prepare(self) -> tuple[nn.Module, nn.Module, Preprocessor, str]:
        if self._ready is None:
            p = self.recipe.preset
            rgb, points = assemble(p, self.recipe.checkpoints_dir)
            common = {
                "version": CACHE_VERSION,
                "geometry": asdict(p.geometry),
                "rgb": {k: v for k, v in asdict(p.rgb).items() if k not in _AFTER_THE_ENCODER},
                "points": {k: v for k, v in asdict(p.points).items() if k not in _AFTER_THE_ENCODER},
                "weights": weights_digest((rgb, points)),
                "scale": repr(self.recipe.points_scale_m),
            }
            self._ready = (rgb, points, self.recipe.preprocessor(), json.dumps(common, sort_keys=True))
        return self._ready

    def _path(self, frame: Frame, class_name: str, common: str) -> Path:
        digest = hashlib.sha256(common.encode())
        digest.update(frame_digest(frame).encode())
        scene = self.recipe.scenes.get(class_name)
        _digest_array(digest, None if scene is None else scene.roi)
        if scene is not None and scene.setup is not None:
            _digest_array(digest, scene.setup.to_array())
        return self.recipe.cache / f"{digest.hexdigest()[:32]}.safetensors"

    @torch.no_grad()
    def __call__(self, job: Job) -> tuple[Path, list[int]] | str:
        rgb_encoder, point_encoder, pre, common = self._prepare()
        p = self.recipe.preset
        try:
            frame = job.frame(p.geometry.pose)
            path = self._path(frame, job.item.class_name, common)
            counts = _cached_counts(path)
            if counts is not None:
                return path, counts
            tensors: dict[str, NDArray[Any]] = {}
            counts = []
            for sample in pre(frame, job.item.class_name).samples:
                n = int(sample.valid.sum())
                if n < max(p.limits.min_valid, p.points.group_size):
                    continue
                point = prepare_points(sample, p.points, self.recipe.points_scale_m)
                rgb_tokens = rgb_encoder(torch.from_numpy(sample.rgb)[None])[0]
                groups, centers = torch.from_numpy(point.groups), torch.from_numpy(point.centers)
                point_tokens = point_encoder(groups[None], centers[None])[0]
                i = len(counts)
                tensors[f"{i}.rgb_tokens"] = rgb_tokens.float().contiguous().numpy()
                tensors[f"{i}.point_tokens"] = np.ascontiguousarray(point.pooled(point_tokens.float().numpy()))
                tensors[f"{i}.pixels"] = np.flatnonzero(sample.valid).astype(np.int32)
                tensors[f"{i}.interp_index"] = point.interp_index.astype(np.int32)
                tensors[f"{i}.interp_weight"] = np.ascontiguousarray(point.interp_weight)
                counts.append(n)
        except InvalidFrame as e:
            return str(e)
        if not counts:
            return f"no part with at least {p.limits.min_valid} valid pixels"
        bad = [k for k, v in tensors.items() if v.dtype == np.float32 and not np.isfinite(v).all()]
        if bad:
            return f"features that are not finite ({', '.join(bad)})"
        write_bytes(path, save(tensors))
        return path, counts


def _cached_counts(path: Path) -> list[int] | None:
    """Valid pixels of each sample of a cached frame; None when there is no readable file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            samples = sum(1 for k in file.keys() if k.endswith(".pixels"))  # noqa: SIM118 (not a dict)
            return [int(file.get_slice(f"{i}.pixels").get_shape()[0]) for i in range(samples)]
    except (SafetensorError, OSError):
        return None
