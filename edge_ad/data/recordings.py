"""Own recordings: ``NAME.color.png``, ``NAME.depth.png`` (16 bit, aligned to colour) and a ``camera.json``.

Flat (``FOLDER/NAME.*``; a ``NAME.mask.png`` makes a sample a test sample) or nested
(``CLASS/{train,validation}/good/NAME.*``, ``CLASS/test/KIND/NAME.*``). METHOD section 10.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from edge_ad.data.camera_file import check_intrinsics_size, find_camera, finite_number, read_camera, read_json_object
from edge_ad.data.dataset import Item, files_by_stem, subfolders
from edge_ad.data.images import defect_of_mask, natural_key, read_colour, read_depth, read_truth, same_size
from edge_ad.errors import InvalidFrame
from edge_ad.frame import Frame

COLOUR, DEPTH, MASK = ".color.png", ".depth.png", ".mask.png"
_SPLITS = ("train", "validation", "test")


class Recordings:
    """Reader of both layouts."""

    def is_class(self, folder: Path) -> bool:
        """Whether ``folder`` holds recordings itself or under ``SPLIT/KIND``."""
        return bool(_stems(folder)) or any(_stems(kind) for split in _SPLITS for kind in subfolders(folder / split))

    def list_class(self, folder: Path, class_name: str, root: Path) -> list[Item]:
        """Items of one class: train, validation, test; good parts before defects."""
        items = [_flat_item(folder, stem, class_name, root) for stem in _stems(folder)]
        for split in _SPLITS:
            for kind in sorted(subfolders(folder / split), key=lambda p: (p.name != "good", natural_key(p.name))):
                for stem in _stems(kind):
                    name = f"{class_name}/{split}/{kind.name}/{stem}"
                    places = (kind, folder / split, folder, root)
                    items.append(
                        Item(
                            name=name,
                            class_name=class_name,
                            split=split,
                            defect=kind.name,
                            source=kind / (stem + COLOUR),
                            read_frame=functools.partial(read_recording, kind, stem, name, class_name, places),
                            read_truth=functools.partial(
                                read_truth, kind / (stem + COLOUR), _mask(kind, stem), kind.name == "good"
                            ),
                        )
                    )
        return items


def partial(folder: Path, stem: str) -> Path:
    """The mark of a recording that is still being written, or whose writer was killed."""
    return folder / f".{stem}.partial"


def _stems(folder: Path) -> list[str]:
    # A recording with one of its two files is listed: reading it says which one is missing.
    both = files_by_stem(folder, (COLOUR,)).keys() | files_by_stem(folder, (DEPTH,)).keys()
    return sorted((stem for stem in both if not partial(folder, stem).exists()), key=natural_key)


def _mask(folder: Path, stem: str) -> Path | None:
    path = folder / (stem + MASK)
    return path if path.is_file() else None


def _flat_item(folder: Path, stem: str, class_name: str, root: Path) -> Item:
    mask = _mask(folder, stem)
    # In a folder of classes the names must tell the classes apart.
    name = stem if folder == root else f"{class_name}/{stem}"
    return Item(
        name=name,
        class_name=class_name,
        split="train" if mask is None else "test",
        defect="good" if mask is None else defect_of_mask(mask),
        source=folder / (stem + COLOUR),
        read_frame=functools.partial(read_recording, folder, stem, name, class_name, (folder, root)),
        read_truth=functools.partial(read_truth, folder / (stem + COLOUR), mask, False),
    )


def _times(folder: Path, stem: str) -> dict[str, Any]:
    """Timestamps, clock and metadata from ``STEM.json``, when there is one."""
    path = folder / f"{stem}.json"
    if not path.is_file() or path.name == "camera.json" or path.name.startswith("camera_"):
        return {}
    data = read_json_object(path)
    found: dict[str, Any] = {}
    for key in ("colour_timestamp_s", "depth_timestamp_s"):
        if key in data:
            found[key] = finite_number(data[key])
            if found[key] is None:
                raise InvalidFrame(f"{path}: {key} = {data[key]!r}", "seconds")
    clock = data.get("clock", "none")
    if not isinstance(clock, str):
        raise InvalidFrame(f"{path}: clock = {clock!r}", "the name of a clock, e.g. 'hardware'")
    metadata = data.get("metadata")
    if isinstance(metadata, dict):
        found["metadata"] = metadata
    return {**found, "clock": clock} if found else {}


def read_recording(
    folder: Path, stem: str, name: str = "", class_name: str | None = None, places: tuple[Path, ...] | None = None
) -> Frame:
    """Read one recording: colour (H, W, 3) uint8, depth (H, W) uint16. Raises InvalidFrame that names the file."""
    colour_path, depth_path = folder / (stem + COLOUR), folder / (stem + DEPTH)
    colour = read_colour(colour_path)
    depth = read_depth(depth_path)
    same_size(depth_path, depth, colour_path, colour)
    camera = find_camera(colour_path, stem, places or (folder,))
    intrinsics, scale = read_camera(camera)
    check_intrinsics_size(camera, intrinsics, colour_path, colour)
    return Frame(
        colour=colour,
        depth=depth,
        depth_scale_m=scale,
        intrinsics=intrinsics,
        source=str(colour_path),
        name=name or stem,
        class_name=class_name,
        **_times(folder, stem),
    )
