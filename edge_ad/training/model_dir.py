"""The model directory: what ``fit`` writes, ``evaluate`` and ``export`` read.

``model.safetensors``: mappers, statistics, anchors, balance (everything that was trained; the encoders stay where they
came from). ``model.json``: preset, classes, scale, provenance. ``scenes.npz``: region of interest and expected depth.
``variants/NAME``: a model directory a variant.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder, read_json, write_bytes, write_json, write_npz
from edge_ad.frame import Bool
from edge_ad.models.build import assemble
from edge_ad.models.checkpoints import read_state
from edge_ad.models.detector import ReferenceDetector
from edge_ad.presets import Preset, preset_from_dict
from edge_ad.runtime.preprocess import Preprocessor, Scene
from edge_ad.runtime.scene_check import SceneSetup
from edge_ad.training.features import weights_digest

SCHEMA = 1
VARIANTS = "variants"
WEIGHTS, DESCRIPTION, SCENES = "model.safetensors", "model.json", "scenes.npz"


@dataclass(frozen=True)
class ClassInfo:
    """A class's name in the data and the words that stand for it in the prompts."""

    name: str
    prompt: str


@dataclass(frozen=True)
class LoadedModel:
    """A fitted model, ready to score.

    detector : in eval mode, on the CPU. points_scale_m : see ``points.normalize``. scenes : by class name.
    provenance : how it was made (JSON). path : the directory.
    """

    path: Path
    preset: Preset
    classes: tuple[ClassInfo, ...]
    points_scale_m: float
    scenes: dict[str, Scene]
    detector: ReferenceDetector
    provenance: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the anchors."""
        return tuple(c.name for c in self.classes)

    def class_index(self, name: str) -> int:
        """Row of the anchors; EdgeAdError for a class that the model was not fitted on."""
        if name not in self.class_names:
            raise EdgeAdError(f"{self.path}: no class '{name}'", f"one of {', '.join(self.class_names)}")
        return self.class_names.index(name)

    def preprocessor(self) -> Preprocessor:
        """The one preprocessing with this model's scenes."""
        return Preprocessor(self.preset.geometry, self.preset.rgb.mean, self.preset.rgb.std, self.scenes)


def write_model(
    path: Path,
    detector: ReferenceDetector,
    classes: tuple[ClassInfo, ...],
    points_scale_m: float,
    scenes: Mapping[str, Scene],
    provenance: dict[str, Any],
    *,
    checkpoints_dir: Path | None = None,
    variants: Mapping[str, Path] | None = None,
    extra: Mapping[str, bytes] | None = None,
    replace: bool = False,
) -> None:
    """Write a model directory; it appears whole or not at all. ``extra``: further files, by name.

    ``checkpoints_dir`` is noted, so that the model finds its encoders again on this machine. ``variants``: model
    directories that are copied into it, by name.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for i, info in enumerate(classes):
        scene = scenes.get(info.name, Scene())
        # Numbers, not names: a class may be called anything.
        if scene.roi is not None:
            arrays[f"{i}.roi"] = scene.roi
        if scene.expected_depth is not None:
            arrays[f"{i}.expected_depth"] = scene.expected_depth
        if scene.setup is not None:
            arrays[f"{i}.setup"] = scene.setup.to_array()
    description = {
        "schema": SCHEMA,
        "preset": detector.preset.to_dict(),
        "classes": [{"name": c.name, "prompt": c.prompt} for c in classes],
        "points_scale_m": points_scale_m,
        "balance": [float(v) for v in detector.balance],
        "encoders_sha256": weights_digest((detector.rgb_encoder, detector.point_encoder)),
        "checkpoints_dir": None if checkpoints_dir is None else str(checkpoints_dir.resolve()),
        "provenance": provenance,
    }
    with new_folder(path, replace=replace, marker=DESCRIPTION) as folder:
        write_bytes(folder / WEIGHTS, save(detector.trained_state()))
        if arrays:
            write_npz(folder / SCENES, **arrays)
        for name, data in (extra or {}).items():
            write_bytes(folder / name, data)
        for name, source in (variants or {}).items():
            shutil.copytree(source, folder / VARIANTS / name)
        write_json(folder / DESCRIPTION, description)


def load_model(path: str | Path, checkpoints_dir: str | Path | None = None) -> LoadedModel:
    """Read a model directory.

    Parameters
    ----------
    checkpoints_dir : where relative checkpoint files of the preset lie; by default where they lay when the model was
        fitted.

    Raises
    ------
    EdgeAdError
        No model directory, one of a newer schema, a file that does not fit, or other encoder weights than those the
        model was fitted on.
    """
    path = Path(path)
    if not (path / DESCRIPTION).is_file():
        raise EdgeAdError(f"{path} is not a model directory (no {DESCRIPTION})", "one that edge-ad fit wrote")
    text = read_json(path / DESCRIPTION)
    where = str(path / DESCRIPTION)
    try:
        schema = int(text["schema"])
        if schema > SCHEMA:
            raise EdgeAdError(f"{where}: schema {schema}", f"at most {SCHEMA}", "update edge-ad")
        preset = preset_from_dict(text["preset"], where=where)
        classes = tuple(ClassInfo(str(c["name"]), str(c["prompt"])) for c in text["classes"])
        scale = float(text["points_scale_m"])
        digest = str(text["encoders_sha256"])
        noted = text["checkpoints_dir"]
        provenance = dict(text["provenance"])
    except (KeyError, TypeError, ValueError) as e:
        raise EdgeAdError(f"{where}: missing or broken field ({e})", "a file that edge-ad fit wrote") from None
    directory = checkpoints_dir if checkpoints_dir is not None else noted
    rgb_encoder, point_encoder = assemble(preset, directory)
    if weights_digest((rgb_encoder, point_encoder)) != digest:
        raise EdgeAdError(
            f"{path}: the encoders' weights are not those that the model was fitted on",
            f"checkpoints {preset.rgb.checkpoint} and {preset.points.checkpoint} as they were then",
            "name their folder with --checkpoints, or fit anew",
        )
    detector = ReferenceDetector(preset, rgb_encoder, point_encoder, len(classes))
    detector.load_trained(read_state(path / WEIGHTS), where=str(path / WEIGHTS))
    scenes = _read_scenes(path / SCENES, classes)
    return LoadedModel(path, preset, classes, scale, scenes, detector.eval(), provenance)


def noted_checkpoints(path: str | Path) -> Path | None:
    """Where the encoders' checkpoint files lay when the model was fitted, as it noted; None: packages."""
    noted = read_json(Path(path) / DESCRIPTION).get("checkpoints_dir")
    return None if noted is None else Path(noted)


def load_variants(path: str | Path, checkpoints_dir: str | Path | None = None) -> dict[str, LoadedModel]:
    """The variants in a model directory, by name; empty where there are none. Raises what :func:`load_model` does."""
    folders = sorted((Path(path) / VARIANTS).glob("*")) if (Path(path) / VARIANTS).is_dir() else []
    return {f.name: load_model(f, checkpoints_dir) for f in folders if f.is_dir()}


def _read_scenes(path: Path, classes: tuple[ClassInfo, ...]) -> dict[str, Scene]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise EdgeAdError(f"{path} cannot be read ({e})", "arrays that edge-ad fit wrote", "fit anew") from None

    def mask(name: str) -> Bool | None:
        return arrays[name].astype(np.bool_) if name in arrays else None

    def setup(name: str) -> SceneSetup | None:
        return SceneSetup.from_array(arrays[name], f"{path}: {name}") if name in arrays else None

    return {
        c.name: Scene(mask(f"{i}.roi"), mask(f"{i}.expected_depth"), setup(f"{i}.setup")) for i, c in enumerate(classes)
    }
