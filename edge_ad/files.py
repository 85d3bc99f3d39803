"""Files that are never half written: temporary name, fsync, rename.

Temporary names are ``.NAME.PID.tmp``, and ``.NAME.PID.old.tmp`` for what is being replaced. What a killed process left
behind goes away when the next one writes there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError


def _fsync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<pid>[0-9]{1,9})\.(?P<old>old\.)?tmp", re.DOTALL)
_swept: set[tuple[int, Path]] = set()


def alive(pid: int) -> bool:
    """Whether a process with this number runs, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _final_name(entry: str) -> str:
    """The name that a temporary name stands for; one temporary folder may be prepared inside another's name."""
    while found := _LEFTOVER.fullmatch(entry):
        entry = found["name"]
    return entry


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what dead processes left in ``folder`` while they wrote ``name`` (None: any file, but no folder).

    A folder that was moved away and whose successor never came gets its own name back.
    """
    try:
        entries = [e.name for e in os.scandir(folder)]
    except OSError:
        return
    for entry in entries:
        found = _LEFTOVER.fullmatch(entry)
        path = folder / entry
        if found is None or alive(int(found["pid"])) or name not in (None, _final_name(entry)):
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                if name is None:
                    continue
                if found["old"] and not (folder / name).exists():
                    os.replace(path, folder / name)
                else:
                    shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # another process was faster, or it is not ours to remove
            continue


def _sweep_once(folder: Path) -> None:
    # Once a process and folder: a listing for every picture of a long run would cost more than the pictures.
    key = (os.getpid(), folder.resolve())
    if key not in _swept:
        _swept.add(key)
        sweep(folder)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` so that a kill leaves the old file or the new one, never a part."""
    tmp = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        with open(tmp, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    except OSError as e:
        _forget(tmp)
        raise EdgeAdError(f"cannot write {path}: {e.strerror}", "", "free some space or check the permissions") from e
    except BaseException:
        _forget(tmp)
        raise
    _fsync_dir(path.parent)


def _forget(tmp: Path) -> None:
    try:
        tmp.unlink()
    except OSError:  # never made, or in a folder that is none
        pass


def temporary(path: Path) -> Path:
    """The name beside ``path`` under which this process prepares it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, written like :func:`write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a final newline, written like :func:`write_bytes`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Compressed ``.npz`` without pickles, written like :func:`write_bytes`."""
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def write_image(path: Path, image: np.ndarray) -> None:
    """PNG or JPEG by the suffix; (H, W) uint8/uint16, or (H, W, 3) uint8 **RGB**."""
    import cv2

    bgr = image[..., ::-1] if image.ndim == 3 else image
    try:
        ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr))
    except cv2.error:
        ok = False
    if not ok:
        raise EdgeAdError(
            f"{path}: cannot encode {image.dtype} {image.shape} as '{path.suffix}'", "a .png or .jpg file"
        )
    write_bytes(path, data.tobytes())


def read_json(path: Path) -> Any:
    """Parse a JSON file; one clear error when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgeAdError(f"{path} does not exist", "a JSON file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise EdgeAdError(f"{path} is not JSON ({e})", "a JSON file that this program wrote") from None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_foreign(path: Path, marker: str) -> None:
    """EdgeAdError when ``path`` is a folder with contents and without the file ``marker`` (unless that is empty)."""
    if marker and path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise EdgeAdError(
            f"{path} holds something else (no {marker})", "a folder that this command wrote", "name another folder"
        )


@contextmanager
def new_folder(path: Path, *, replace: bool = False, marker: str = "") -> Iterator[Path]:
    """Fill a folder under a temporary name; it gets its own name only when the block ends well.

    ``marker`` names a file that only folders of this kind hold: with ``replace`` no other folder is ever replaced.

    Raises
    ------
    EdgeAdError
        ``path`` exists already and ``replace`` is false, is a file, or holds something else.
    """
    refuse_foreign(path, marker if replace else "")
    if path.exists() and not replace:
        raise EdgeAdError(f"{path} exists already", "a new folder", "name another one or pass --force")
    if path.exists() and not path.is_dir():
        raise EdgeAdError(f"{path} is a file", "a folder to replace", "name another one")
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    tmp = temporary(path)
    if tmp.exists():
        shutil.rmtree(tmp)
    tmp.mkdir()
    try:
        yield tmp
        for root, _, files in os.walk(tmp):
            for name in files:
                fd = os.open(os.path.join(root, name), os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        take_place(tmp, path)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise


def take_place(new: Path, path: Path) -> None:
    """Give the finished folder ``new`` the name ``path``; what is there moves away first and is deleted last.

    A kill leaves the old folder or the new one; between the two renames :func:`sweep` knows the old one's name.
    """
    if not path.exists():
        os.replace(new, path)
        _fsync_dir(path.parent)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    _fsync_dir(path.parent)
    shutil.rmtree(old, ignore_errors=True)
