"""Data sets on disk: one list of items, whichever of the known layouts they lie in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_ad.data.images import natural_key, read_mask
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Bool, Frame

LAYOUTS = ("mvtec3d", "eyecandies", "recordings")
_HELP = (
    "MVTec 3D-AD (CLASS/train/good/rgb), Eyecandies (CLASS/train/data) or recordings "
    "(NAME.color.png, NAME.depth.png, camera.json)"
)


@dataclass(frozen=True)
class Item:
    """One sample on disk. Nothing is read before :meth:`frame` or :meth:`ground_truth` is called.

    Attributes
    ----------
    name : unique within the data set, e.g. ``"bagel/test/hole/003"``.
    class_name : class of the part.
    split : ``"train"``, ``"validation"``, ``"test"`` or ``"test_private"``.
    defect : ``"good"`` or the name of the kind of defect.
    source : the colour file.
    """

    name: str
    class_name: str
    split: str
    defect: str
    source: Path
    read_frame: Callable[[], Frame] = field(repr=False, compare=False)
    read_truth: Callable[[], Bool | None] = field(repr=False, compare=False)

    def frame(self) -> Frame:
        """Read the files. Raises InvalidFrame that names the file at fault."""
        return self.read_frame()

    def ground_truth(self) -> Bool | None:
        """(H, W) bool, True on the defect; all False for a part known to be good; None when unknown."""
        return self.read_truth()


SCENE_FILE = "scene.json"


@dataclass(frozen=True)
class Dataset:
    """Items of one folder, in natural order. ``rois`` maps a class to the file of its region of interest, ``scenes`` to
    what ``edge-ad calibrate scene`` wrote about its camera."""

    root: Path
    layout: str
    items: tuple[Item, ...]
    rois: Mapping[str, Path] = field(default_factory=dict)
    scenes: Mapping[str, Path] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the items."""
        return tuple(dict.fromkeys(item.class_name for item in self.items))

    def select(
        self, class_name: str | None = None, split: str | None = None, defect: str | None = None
    ) -> tuple[Item, ...]:
        """Items that agree with every argument given; may be empty."""
        return tuple(
            item
            for item in self.items
            if (class_name is None or item.class_name == class_name)
            and (split is None or item.split == split)
            and (defect is None or item.defect == defect)
        )

    def roi(self, class_name: str) -> Bool | None:
        """(H, W) bool region of interest from ``roi.png``, or None when the class has none. Raises InvalidFrame."""
        path = self.rois.get(class_name)
        if path is None:
            return None
        roi = read_mask(path)
        if not roi.any():
            raise InvalidFrame(f"{path} is black everywhere", "white where the part is inspected")
        return roi


class _Layout(Protocol):
    def is_class(self, folder: Path) -> bool:
        """Whether ``folder`` is one class in this layout."""

    def list_class(self, folder: Path, class_name: str, root: Path) -> list[Item]:
        """Items of one class, in natural order."""


def subfolders(folder: Path) -> list[Path]:
    """Visible folders inside ``folder`` in natural order; none when it does not exist."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())
    return sorted(found, key=lambda p: natural_key(p.name))


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Visible files in ``folder`` whose name ends with one of ``suffixes`` (any case), by the rest of the name."""
    found: dict[str, Path] = {}
    if folder.is_dir():
        for path in folder.iterdir():
            end = next((s for s in suffixes if path.name.lower().endswith(s)), None)
            if end and not path.name.startswith(".") and len(path.name) > len(end):
                found[path.name[: -len(end)]] = path
    return {stem: found[stem] for stem in sorted(found, key=natural_key)}


def _layouts(names: tuple[str, ...]) -> dict[str, _Layout]:
    from edge_ad.data import eyecandies, mvtec3d, recordings

    known: dict[str, _Layout] = {
        "mvtec3d": mvtec3d.Mvtec3d(),
        "eyecandies": eyecandies.Eyecandies(),
        "recordings": recordings.Recordings(),
    }
    return {name: known[name] for name in names}


def open_dataset(root: str | Path, layout: str = "auto", class_name: str | None = None) -> Dataset:
    """List the samples under ``root`` without reading their images.

    Parameters
    ----------
    root : a folder of classes, or the folder of one class.
    layout : ``"auto"`` or one of ``LAYOUTS``.
    class_name : in a folder of classes the one class to list; for a folder that is itself one class its name
        (else the folder's name is taken).

    Raises
    ------
    EdgeAdError
        When there is no such folder, no sample in it, two layouts in one folder, or no such class.
    """
    root = Path(root)
    if layout != "auto" and layout not in LAYOUTS:
        raise EdgeAdError(f"layout '{layout}'", f"auto, {', '.join(LAYOUTS)}")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise EdgeAdError(f"{root} {what}", "a folder with samples")
    try:
        found = _find(root, LAYOUTS if layout == "auto" else (layout,))
        if not found:
            wanted = _HELP if layout == "auto" else f"the layout {layout}"
            raise EdgeAdError(f"no samples in {root}", wanted)
        if len({(name, folder == root) for name, folder in found}) > 1:
            said = ", ".join(f"{name} in {folder}" for name, folder in _one_each(root, found))
            raise EdgeAdError(f"more than one layout: {said}", "one layout", "name it with --layout or move one away")
        name = found[0][0]
        reader = _layouts((name,))[name]
        items: list[Item] = []
        rois: dict[str, Path] = {}
        scenes: dict[str, Path] = {}
        for folder in (folder for _, folder in found):
            its_class = (class_name or root.resolve().name or "part") if folder == root else folder.name
            if class_name is not None and its_class != class_name:
                continue
            items += reader.list_class(folder, its_class, root)
            roi = next((p for p in (folder / "roi.png", root / "roi.png") if p.is_file()), None)
            if roi is not None:
                rois[its_class] = roi
            scene = next((p for p in (folder / SCENE_FILE, root / SCENE_FILE) if p.is_file()), None)
            if scene is not None:
                scenes[its_class] = scene
    except OSError as e:
        raise EdgeAdError(f"{e.filename or root} cannot be read ({e.strerror})", "a readable folder") from None
    if class_name is not None and not items:
        classes = ", ".join(folder.name for _, folder in found)
        raise EdgeAdError(f"no class '{class_name}' in {root}", f"one of: {classes}")
    if not items:
        raise EdgeAdError(f"no samples in {root} (its folders are empty)", _HELP)
    return Dataset(root, name, tuple(items), rois, scenes)


def _find(root: Path, names: tuple[str, ...]) -> list[tuple[str, Path]]:
    """(layout, class folder) pairs: the root itself and the folders in it."""
    layouts = _layouts(names)
    return [
        (name, folder)
        for folder in (root, *subfolders(root))
        for name, layout in layouts.items()
        if layout.is_class(folder)
    ]


def _one_each(root: Path, found: list[tuple[str, Path]]) -> list[tuple[str, Path]]:
    first: dict[tuple[str, bool], tuple[str, Path]] = {}
    for name, folder in found:
        first.setdefault((name, folder == root), (name, folder))
    return list(first.values())
