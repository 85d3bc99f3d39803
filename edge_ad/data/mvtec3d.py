"""MVTec 3D-AD as it is distributed: ``CLASS/SPLIT/KIND/{rgb,xyz,gt}/NNN.*`` (METHOD section 10)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_ad.data.camera_file import check_intrinsics_size, read_intrinsics
from edge_ad.data.dataset import Item, files_by_stem, subfolders
from edge_ad.data.images import COLOUR_SUFFIXES, natural_key, read_colour, read_truth, read_xyz, same_size
from edge_ad.frame import Frame

XYZ_SUFFIXES = (".tiff", ".tif")
_SPLITS = ("train", "validation", "test")


class Mvtec3d:
    """Reader of the layout. xyz is in metres; colour and xyz lie on one grid, so no intrinsics are needed.

    A ``camera.json`` (as for recordings) in the class folder or the root gives them all the same.
    """

    def is_class(self, folder: Path) -> bool:
        """Whether ``folder`` holds ``SPLIT/KIND/rgb`` or ``SPLIT/KIND/xyz``."""
        return any(
            (kind / part).is_dir()
            for split in _SPLITS
            for kind in subfolders(folder / split)
            for part in ("rgb", "xyz")
        )

    def list_class(self, folder: Path, class_name: str, root: Path) -> list[Item]:
        """Items of one class: train, validation, test; good parts before defects."""
        camera = next((p for p in (folder / "camera.json", root / "camera.json") if p.is_file()), None)
        items = []
        for split in _SPLITS:
            kinds = sorted(subfolders(folder / split), key=lambda p: (p.name != "good", natural_key(p.name)))
            for kind in kinds:
                rgb = files_by_stem(kind / "rgb", COLOUR_SUFFIXES)
                xyz = files_by_stem(kind / "xyz", XYZ_SUFFIXES)
                gt = files_by_stem(kind / "gt", COLOUR_SUFFIXES)
                # A sample with one of its two files is listed: reading it says which one is missing.
                for stem in sorted(rgb.keys() | xyz.keys(), key=natural_key):
                    name = f"{class_name}/{split}/{kind.name}/{stem}"
                    colour_path = rgb.get(stem, kind / "rgb" / f"{stem}.png")
                    truth_path = gt.get(stem) or (kind / "gt" / f"{stem}.png" if gt else None)
                    items.append(
                        Item(
                            name=name,
                            class_name=class_name,
                            split=split,
                            defect=kind.name,
                            source=colour_path,
                            read_frame=partial(
                                _frame,
                                name,
                                class_name,
                                colour_path,
                                xyz.get(stem, kind / "xyz" / f"{stem}.tiff"),
                                camera,
                            ),
                            read_truth=partial(read_truth, colour_path, truth_path, kind.name == "good"),
                        )
                    )
        return items


def _frame(name: str, class_name: str, colour_path: Path, xyz_path: Path, camera: Path | None) -> Frame:
    colour = read_colour(colour_path)
    xyz = read_xyz(xyz_path)
    same_size(xyz_path, xyz, colour_path, colour)
    intrinsics = None
    if camera is not None:
        intrinsics = read_intrinsics(camera)
        check_intrinsics_size(camera, intrinsics, colour_path, colour)
    return Frame(
        colour=colour, xyz=xyz, intrinsics=intrinsics, source=str(colour_path), name=name, class_name=class_name
    )
