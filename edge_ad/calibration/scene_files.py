"""Where a calibrated scene is kept: beside the recordings, for ``fit`` and ``export``, or in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.bundle import Bundle
from edge_ad.bundle.golden import npz_bytes
from edge_ad.bundle.manifest import MANIFEST
from edge_ad.bundle.writer import add_files
from edge_ad.calibration.scene import SceneReport
from edge_ad.calibration.scene_picture import draw_scene
from edge_ad.data.dataset import SCENE_FILE
from edge_ad.data.images import read_mask
from edge_ad.errors import EdgeAdError
from edge_ad.files import write_image, write_json
from edge_ad.frame import Bool
from edge_ad.runtime.scene_check import SceneSetup

ROI_FILE, PICTURE_FILE = "roi.png", "scene.png"
SAMPLE = 224
"""Pixels along a side of the networks' input in every shipped preset."""


@dataclass(frozen=True)
class Place:
    """A folder of recordings, or a bundle with the classes to write for."""

    folder: Path
    bundle: Bundle | None = None
    classes: tuple[str, ...] = ()


def open_target(target: Path, class_name: str | None = None, *, force: bool = False) -> Place:
    """Find out what ``target`` is; a folder that does not exist yet is one for recordings.

    Raises EdgeAdError for a file, a packed bundle, an unknown class, a class without a bundle, and, without ``force``,
    a folder that has a scene.
    """
    if target.is_file():
        Bundle.open(target).writable("a scene cannot be written")
        raise EdgeAdError(f"{target} is a file", "a bundle, or a folder of recordings")
    if (target / MANIFEST).is_file():
        bundle = Bundle.open(target)
        bundle.writable("a scene cannot be written")
        names = (class_name,) if class_name is not None else bundle.class_names
        for name in names:
            bundle.scene(name)  # says which classes there are
        return Place(target, bundle, names)
    if class_name is not None:
        raise EdgeAdError(
            f"{target} is no bundle, and --class-name is for one", "", f"name the class's folder: {target / class_name}"
        )
    if (target / SCENE_FILE).exists() and not force:
        raise EdgeAdError(f"{target / SCENE_FILE} exists already", "a folder without a scene", "pass --force")
    return Place(target)


def sample_size(place: Place) -> int:
    """Pixels along a side of the networks' input."""
    return SAMPLE if place.bundle is None else place.bundle.preset.geometry.size


def find_roi(place: Place, boxes: Sequence[str], shape: tuple[int, int]) -> Bool | None:
    """The region asked for, (H, W): the boxes given, else the one that is there already (drawn by hand), else None.

    Raises EdgeAdError for a box that is none, or that lies outside the picture.
    """
    if boxes:
        roi = np.zeros(shape, dtype=np.bool_)
        for text in boxes:
            x0, y0, x1, y1 = _box(text, shape)
            roi[y0:y1, x0:x1] = True
        return roi
    if place.bundle is None:
        path = place.folder / ROI_FILE
        fresh = not path.is_file() or (place.folder / SCENE_FILE).exists()  # ours, of an earlier calibration
        return None if fresh else read_mask(path)
    for name in place.classes:
        arrays = place.bundle.scene(name) or {}
        if "roi" in arrays:
            return np.asarray(arrays["roi"], dtype=np.bool_)
    return None


def _box(text: str, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = shape
    try:
        x0, y0, x1, y1 = (int(v) for v in text.split(","))
    except ValueError:
        raise EdgeAdError(f"--roi {text}", "X0,Y0,X1,Y1 in pixels", "e.g. --roi 80,60,560,420") from None
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise EdgeAdError(f"--roi {text}", f"X0 < X1 <= {width} and Y0 < Y1 <= {height}")
    return x0, y0, x1, y1


def write_scene(place: Place, report: SceneReport, picture: Path | None = None) -> list[str]:
    """Write the scene and its picture; returns what was written.

    In a bundle the regions and tiles that the model was fitted with stay, because the model knows the part at their
    scale: plane, band, noise and limits are set anew.
    """
    drawn = draw_scene(report)
    written: list[str] = []
    if place.bundle is None:
        write_image(place.folder / ROI_FILE, np.where(report.roi, 255, 0).astype(np.uint8))
        write_image(place.folder / PICTURE_FILE, drawn)
        write_json(place.folder / SCENE_FILE, report.setup.to_json())
        written += [str(place.folder / name) for name in (ROI_FILE, PICTURE_FILE, SCENE_FILE)]
    else:
        ok, png = cv2.imencode(".png", np.ascontiguousarray(drawn[..., ::-1]))
        assert ok
        files: dict[str, bytes | Path] = {}
        for name in place.classes:
            arrays: dict[str, NDArray[Any]] = dict(place.bundle.scene(name) or {})
            tiles: tuple[tuple[int, int, int, int], ...] = ()
            overlap = 0.0
            if "setup" in arrays:
                old = SceneSetup.from_array(arrays["setup"], f"{place.bundle.where}: scene of {name}")
                tiles, overlap = old.tiles, old.tile_overlap
            arrays["setup"] = replace(report.setup, tiles=tiles, tile_overlap=overlap).to_array()
            files[f"scenes/{name}.npz"] = npz_bytes(arrays)
            files[f"scenes/{name}.png"] = png.tobytes()
        add_files(place.bundle, files)
        written += [f"{place.folder / name}" for name in files]
    if picture is not None:
        write_image(picture, drawn)
        written.append(str(picture))
    return written
