"""Writing a bundle: under a temporary name, fsynced, renamed; so that there is a whole one or none."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_ad import __version__
from edge_ad.bundle.manifest import (
    MANIFEST,
    ClassEntry,
    GraphSpec,
    Manifest,
    Thresholds,
    manifest_from_dict,
    safe_relative,
    seal,
)
from edge_ad.bundle.reader import Bundle
from edge_ad.bundle.variants import VariantEntry
from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder, sha256, write_json


def _place(source: bytes | Path, target: Path) -> str:
    """Put one file into the new folder; return its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        target.write_bytes(source)
        return hashlib.sha256(source).hexdigest()
    if not source.is_file():
        raise EdgeAdError(f"{source} does not exist", f"the file that becomes {target.name}")
    shutil.copyfile(source, target)
    return sha256(target)


def write_bundle(
    path: str | Path,
    *,
    name: str,
    preset: Any,
    classes: Sequence[ClassEntry],
    graphs: Mapping[str, GraphSpec],
    geometry: Mapping[str, float],
    fusion: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    thresholds: Thresholds | None = None,
    provenance: Mapping[str, Any] | None = None,
    variants: Mapping[str, VariantEntry] | None = None,
    replace: bool = False,
) -> Bundle:
    """Write a bundle folder with the hash of every file.

    Parameters
    ----------
    preset : edge_ad.presets.Preset.
    graphs : graph name -> GraphSpec; each ``file`` must be among ``files``.
    files : path within the bundle -> its bytes or the file to copy.
    variants : name -> what a variant has of its own; the files of its graphs must be among ``files``.
    replace : whether an existing **bundle** at ``path`` may be replaced (nothing else ever is), its engines included.

    Raises
    ------
    EdgeAdError
        A field that :meth:`Bundle.open` would refuse, a missing source file, or an occupied path.
    """
    path = Path(path)
    if replace and path.exists() and not (path / MANIFEST).is_file():
        raise EdgeAdError(f"{path} exists and is not a bundle", "a bundle to replace", "name another folder")
    where = f"bundle {path}"
    for target in files:
        safe_relative(target, where)
    try:
        with new_folder(path, replace=replace) as folder:
            hashes = {target: _place(files[target], folder / target) for target in sorted(files)}
            manifest = Manifest(
                name=name,
                created_by=f"edge-ad {__version__}",
                preset=preset,
                classes=tuple(classes),
                geometry=geometry,
                fusion=fusion,
                thresholds=thresholds or {},
                graphs=graphs,
                provenance=provenance or {},
                files=hashes,
                variants=variants or {},
            )
            manifest = manifest_from_dict(manifest.to_dict(), where)
            write_json(folder / MANIFEST, seal(manifest.to_dict()))
    except OSError as e:
        raise EdgeAdError(f"cannot write {where}: {e.strerror}", "", "free some space or check permissions") from e
    return Bundle(path, manifest)


def add_files(bundle: Bundle, files: Mapping[str, bytes | Path], forget: str = "") -> Bundle:
    """Add or replace files of a bundle (a class's scene, graphs of another precision), all of them or none.

    ``forget`` names a precision: its thresholds (of the bundle's variant) go when its graphs change, for they were
    set on
    the maps of the old ones.

    The folder is built anew beside the old one (unchanged files and engines as hard links where the disk has
    them) and takes its name in one rename, so that a kill never leaves a file without its hash.

    Raises
    ------
    EdgeAdError
        An unsafe name, a bundle opened from a ``.tar``, or a disk that is full.
    """
    bundle.writable("files cannot be added")
    for target in files:
        safe_relative(target, bundle.where)
    current = Bundle.open(bundle.path, verify=False)  # afresh: its thresholds may have been set meanwhile
    try:
        with new_folder(bundle.path, replace=True) as folder:
            for name in current.manifest.files:
                if name not in files:
                    _link(bundle.path / name, folder / name)
            if (bundle.path / "engines").is_dir():
                shutil.copytree(bundle.path / "engines", folder / "engines", copy_function=_link)
            hashes = {n: _place(s, folder / n) for n, s in files.items()}
            values = {**current.manifest.to_dict(), "files": {**current.manifest.files, **hashes}}
            if forget and any(current.manifest.files.get(n) != h for n, h in hashes.items() if n.endswith(".onnx")):
                _forget_thresholds(values["thresholds"], bundle.variant, forget)
            manifest = manifest_from_dict(values, bundle.where)
            write_json(folder / MANIFEST, seal(manifest.to_dict()))
    except OSError as e:
        raise EdgeAdError(
            f"cannot write {bundle.where}: {e.strerror}", "", "free some space or check permissions"
        ) from e
    return Bundle(bundle.path, manifest)


def _forget_thresholds(thresholds: dict[str, Any], variant: str, precision: str) -> None:
    for slots in thresholds.values():
        for slot, by_precision in slots.items():
            if slot == variant or slot.startswith(f"{variant}+"):  # at any score stride
                by_precision.pop(precision, None)


def _link(source: str | Path, target: str | Path) -> None:
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
