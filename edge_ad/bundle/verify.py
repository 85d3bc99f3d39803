"""Does a bundle's folder hold what its manifest says, and nothing else?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ad.bundle.manifest import MANIFEST, seal
from edge_ad.errors import EdgeAdError
from edge_ad.files import read_json, sha256

if TYPE_CHECKING:
    from edge_ad.bundle.reader import Bundle


def _remedy(archive: Path | None, folder: Path) -> str:
    if archive is not None:
        return f"delete the folder {folder}; it is unpacked again from {archive}"
    return "run edge-ad export again"


def verify_files(bundle: Bundle) -> None:
    """See :meth:`Bundle.verify`."""
    remedy = _remedy(bundle.archive, bundle.path)
    root = bundle.path.resolve()
    values = read_json(bundle.path / MANIFEST)
    if values.get("digest") != seal(values)["digest"]:
        raise EdgeAdError(
            f"{bundle.where}: {MANIFEST} does not match its own digest",
            "a manifest that only edge-ad changes",
            f"it was edited or damaged; {remedy}",
        )
    for name, expected in bundle.manifest.files.items():
        path = bundle.path / name
        if not path.is_file():
            raise EdgeAdError(f"{bundle.where}: {name} is missing", "every file of the manifest", remedy)
        if not path.resolve().is_relative_to(root):
            raise EdgeAdError(f"{bundle.where}: {name} is a link that leads out of the bundle", "a plain file", remedy)
        found = sha256(path)
        if found != expected:
            raise EdgeAdError(
                f"{bundle.where}: {name} has SHA-256 {found[:12]}...",
                f"{expected[:12]}...",
                f"the file was changed after export; {remedy}",
            )
    for name in _present(bundle.path):
        if name not in bundle.manifest.files:
            raise EdgeAdError(
                f"{bundle.where}: {name} is not in its manifest", "only listed files", f"remove it, or {remedy}"
            )


def _present(folder: Path) -> list[str]:
    """Files in the folder that the manifest must list: not itself, the engines, or what a kill left behind."""
    out = []
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        folders[:] = [f for f in folders if not (here == Path() and f == "engines") and not _leftover(f)]
        out += [(here / f).as_posix() for f in files if not _leftover(f)]
    return sorted(n for n in out if n != MANIFEST)


def _leftover(name: str) -> bool:
    return name.startswith(".") and name.endswith(".tmp")
