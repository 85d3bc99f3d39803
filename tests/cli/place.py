"""Where the tests of bad input work, what they spoil, and how they call the command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from click.testing import CliRunner, Result

from edge_ad.cli.main import main
from edge_ad.runtime.geometry import frame_xyz
from tests.training.tiny import make_frame


@dataclass(frozen=True)
class Place:
    """Where a test works: a bundle with thresholds, one without, a model, good data, and a folder for what is made."""

    root: Path
    ready: Path
    bare: Path
    model: Path
    data: Path

    @property
    def out(self) -> Path:
        return self.root / "out"

    def copy(self, source: Path, name: str = "copy") -> Path:
        return Path(shutil.copytree(source, self.root / name))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.name.endswith(".tmp")]


def mvtec(folder: Path) -> Path:
    good = folder / "cookie/test/good"
    for kind in ("rgb", "xyz"):
        (good / kind).mkdir(parents=True)
    for i in range(3):
        frame = make_frame("cookie", i)
        cv2.imwrite(str(good / f"rgb/{i:03d}.png"), np.ascontiguousarray(frame.colour[..., ::-1]))
        tifffile.imwrite(good / f"xyz/{i:03d}.tiff", frame_xyz(frame), photometric="rgb")
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def redraw(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None
    cv2.imwrite(str(path), change(image))
