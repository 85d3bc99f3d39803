"""Eyecandies as it is distributed: ``CLASS/SPLIT/data/NNN_{image_4.png, depth.png, ...}`` (METHOD section 10).

The depth is metres along the optical axis (z), not along the ray: the data set's own page
(https://eyecan-ai.github.io/eyecandies, "Depth Map To Pointcloud Conversion") multiplies it with
``K^-1 (u, v, 1)``, with f = 711.11 px and the principal point at (width / 2, height / 2). Every pixel is
rendered, so that 0 in the PNG is the nearest point of the picture and no hole.
"""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path

import numpy as np

from edge_ad.data.dataset import Item, files_by_stem
from edge_ad.data.images import defect_of_mask, natural_key, read_colour, read_depth, read_truth, same_size
from edge_ad.errors import InvalidFrame
from edge_ad.frame import Frame, Intrinsics

FOCAL_LENGTH_PX = 711.11
"""Focal length of the data set's one camera, for pictures 512 pixels wide."""
WIDTH_PX = 512
LIGHT = 4
"""The lighting that published results use (``image_4``)."""

_SPLITS = {"train": "train", "val": "validation", "test_public": "test", "test_private": "test_private"}
_KINDS = ("bumps", "colors", "dents", "normals")
_PAIR = re.compile(r"""["']?(\w+)["']?\s*:\s*["']?([^\s,{}"'#]+)""")


class Eyecandies:
    """Reader of the layout; numbers may have any width (three digits in train, two in test)."""

    def is_class(self, folder: Path) -> bool:
        """Whether ``folder`` holds ``SPLIT/data`` with pictures or depth in it."""
        return any(
            any((folder / split / "data").glob(pattern))
            for split in _SPLITS
            for pattern in ("*_image_*.png", "*_depth.png")
        )

    def list_class(self, folder: Path, class_name: str, root: Path) -> list[Item]:
        """Items of one class. The few bytes of ``metadata.yaml`` are read for the kind of defect."""
        items = []
        for distributed, split in _SPLITS.items():
            data = folder / distributed / "data"
            stems = files_by_stem(data, (f"_image_{LIGHT}.png",)).keys() | files_by_stem(data, ("_depth.png",)).keys()
            for stem in sorted(stems, key=natural_key):
                defect = "good" if split in ("train", "validation") else _defect(data, stem)
                name = f"{class_name}/{split}/{stem}"
                colour, mask = data / f"{stem}_image_{LIGHT}.png", data / f"{stem}_mask.png"
                items.append(
                    Item(
                        name=name,
                        class_name=class_name,
                        split=split,
                        defect=defect,
                        source=colour,
                        read_frame=partial(_frame, name, class_name, data, stem),
                        read_truth=partial(read_truth, colour, mask if mask.is_file() else None, defect == "good"),
                    )
                )
        return items


def parse_pairs(text: str) -> dict[str, str]:
    """``key: value`` pairs of a flat or once-nested YAML text, block or flow style; nesting and comments are dropped.

    Enough for the data set's own files (``normalization:`` over ``min:`` and ``max:``); no general YAML.
    """
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        for key, value in _PAIR.findall(re.sub(r"(^|\s)#.*$", "", line)):
            pairs[key] = value
    return pairs


def _read_pairs(path: Path) -> dict[str, str]:
    try:
        return parse_pairs(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidFrame(f"{path} does not exist", "a file with the depth's min and max in metres") from None
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidFrame(f"{path} cannot be read ({e})", "lines of 'key: value'") from None


def _defect(data: Path, stem: str) -> str:
    """Kind of defect: ``good``, one of the data set's four kinds, ``combined``, or ``anomaly`` / ``unknown``."""
    metadata = data / f"{stem}_metadata.yaml"
    if metadata.is_file():
        try:
            pairs = _read_pairs(metadata)
        except InvalidFrame:
            pairs = {}
        yes = {key for key, value in pairs.items() if value.lower() in ("1", "true", "yes")}
        kinds = [kind for kind in _KINDS if kind in yes]
        if kinds:
            return kinds[0] if len(kinds) == 1 else "combined"
        if "anomalous" in pairs:
            return "anomaly" if "anomalous" in yes else "good"
    mask = data / f"{stem}_mask.png"
    if not mask.is_file():
        return "unknown"
    return defect_of_mask(mask)


def _depth_range(path: Path) -> tuple[float, float]:
    pairs = _read_pairs(path)
    try:
        low, high = float(pairs["min"]), float(pairs["max"])
    except (KeyError, ValueError):
        said = ", ".join(f"{k}: {v}" for k, v in pairs.items()) or "no 'key: value'"
        raise InvalidFrame(f"{path}: {said[:200]}", "normalization with min and max in metres") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InvalidFrame(f"{path}: min {low}, max {high}", "finite numbers, min <= max")
    return low, high


def _frame(name: str, class_name: str, data: Path, stem: str) -> Frame:
    colour_path, depth_path = data / f"{stem}_image_{LIGHT}.png", data / f"{stem}_depth.png"
    colour = read_colour(colour_path)
    raw = read_depth(depth_path)
    same_size(depth_path, raw, colour_path, colour)
    low, high = _depth_range(data / f"{stem}_info_depth.yaml")
    depth = (low + (high - low) * (raw.astype(np.float64) / 65535.0)).astype(np.float32)
    depth[depth <= 0] = 0.0  # behind the camera: no depth
    height, width = raw.shape
    focal = FOCAL_LENGTH_PX * width / WIDTH_PX
    return Frame(
        colour=colour,
        depth=depth,
        depth_scale_m=1.0,
        intrinsics=Intrinsics(width, height, focal, focal, width / 2, height / 2),
        source=str(colour_path),
        name=name,
        class_name=class_name,
    )
