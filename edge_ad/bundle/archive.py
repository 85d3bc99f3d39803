"""A bundle as one ``.tar``: packed so that equal bundles give equal bytes, unpacked with safe members only."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edge_ad.bundle.manifest import MANIFEST, safe_relative
from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder, sha256, sweep, temporary

if TYPE_CHECKING:
    from edge_ad.bundle.reader import Bundle


def pack(bundle: Bundle, tar_path: Path, *, replace: bool = False) -> Path:
    """Write a bundle as one ``.tar`` (without its engines: those belong to the box that built them).

    The order is sorted and times and owners are zero, so that the same bundle always gives the same hash.

    Raises
    ------
    EdgeAdError
        The bundle fails its own check, or ``tar_path`` exists and ``replace`` is false, or cannot be written.
    """
    tar_path = Path(tar_path)
    bundle.verify()
    if tar_path.exists() and not replace:
        raise EdgeAdError(f"{tar_path} exists already", "a new file", "name another one or pass --force")
    tmp = temporary(tar_path)
    try:
        tar_path.parent.mkdir(parents=True, exist_ok=True)
        sweep(tar_path.parent, tar_path.name)
        with open(tmp, "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for name in sorted([MANIFEST, *bundle.manifest.files]):
                    info = tarfile.TarInfo(name)
                    info.size = (bundle.path / name).stat().st_size
                    info.mode = 0o644
                    with open(bundle.path / name, "rb") as f:
                        tar.addfile(info, f)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(tmp, tar_path)
    except OSError as e:
        tmp.unlink(missing_ok=True)
        raise EdgeAdError(f"cannot write {tar_path}: {e.strerror}", "", "free some space or check permissions") from e
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise
    return tar_path


def unpack(tar_path: Path) -> Path:
    """Unpack into ``<name>.<hash>.unpacked`` beside the archive, once a content; return that folder.

    Raises
    ------
    EdgeAdError
        Not a tar, a member that is a link, a device or leaves the folder, no manifest, or no space.
    """
    folder = tar_path.with_name(f"{tar_path.stem}.{sha256(tar_path)[:16]}.unpacked")
    if folder.is_dir():
        return folder
    where = f"bundle {tar_path}"
    try:
        with tarfile.open(tar_path, "r:") as tar:
            members = tar.getmembers()
            prefix = _root([m.name for m in members], where)
            with new_folder(folder) as out:
                for member in members:
                    _extract(tar, member, prefix, out, where)
    except (tarfile.TarError, EOFError) as e:
        raise EdgeAdError(
            f"{where} is not a complete tar archive ({e})", "a .tar of a bundle", "copy it again"
        ) from None
    except OSError as e:
        raise EdgeAdError(
            f"{where} cannot be unpacked into {folder} ({e.strerror})", "", "copy it to a folder with space and rights"
        ) from e
    return folder


def _root(names: list[str], where: str) -> PurePosixPath:
    """The archive's folder that holds the manifest: the top, or one folder that was packed whole."""
    roots = [PurePosixPath(n).parent for n in names if PurePosixPath(n).name == MANIFEST]
    roots = [r for r in roots if len(r.parts) <= 1]
    if not roots:
        raise EdgeAdError(f"{where} holds no {MANIFEST}", "a packed bundle", "pack it with edge-ad export")
    return min(roots, key=lambda r: len(r.parts))


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, prefix: PurePosixPath, out: Path, where: str) -> None:
    name = member.name.removeprefix("./")
    if member.isdir():
        return
    if not member.isreg():
        raise EdgeAdError(f"{where}: member {member.name!r} is a link or a device", "plain files only")
    safe_relative(name, where)
    if prefix.parts and PurePosixPath(name).parts[: len(prefix.parts)] != prefix.parts:
        raise EdgeAdError(f"{where}: member {member.name!r} lies outside {prefix}", "one bundle in the archive")
    target = out / PurePosixPath(name).relative_to(prefix)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is None:
        raise EdgeAdError(f"{where}: member {member.name!r} cannot be read", "", "copy the archive again")
    with source, open(target, "wb") as f:
        shutil.copyfileobj(source, f, 1 << 20)
