"""Tiny data sets in each layout, written to a temporary folder by the tests."""

import json
from pathlib import Path

import cv2
import numpy as np
import tifffile

CAMERA = {
    "width": 12,
    "height": 8,
    "fx": 600.0,
    "fy": 601.0,
    "ppx": 5.5,
    "ppy": 3.5,
    "depth_scale_m": 0.0001,
    "depth_aligned_to": "color",
}


def png(path: Path, image: np.ndarray) -> Path:
    """Write an image as it is; three channels are taken as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(image))
    return path


def tiff(path: Path, array: np.ndarray, pages: bool = False) -> Path:
    """Write an array as one page, or each row as a page of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = array.ndim == 3 and array.shape[2] == 3 and not pages
    tifffile.imwrite(path, array, photometric="rgb" if colours else "minisblack")
    return path


def colour(height: int = 8, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def xyz(height: int = 8, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 0.6, (height, width, 3)).astype(np.float32)


def depth(height: int = 8, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16)


def mask(height: int = 8, width: int = 12) -> np.ndarray:
    """A defect of 2 x 3 pixels; the values are defect ids, as in MVTec 3D-AD."""
    m = np.zeros((height, width), np.uint8)
    m[2:4, 5:8] = 3
    return m


def mvtec3d_class(folder: Path, height: int = 8, width: int = 12) -> Path:
    """Two train, one validation, one good test and two defect samples (names 2 and 10)."""
    for place in (
        *("train/good/2", "train/good/10", "validation/good/0", "test/good/0"),
        *("test/hole/2", "test/hole/10"),
    ):
        kind, stem = (folder / place).parent, Path(place).name
        png(kind / "rgb" / f"{stem}.png", colour(height, width, int(stem)))
        tiff(kind / "xyz" / f"{stem}.tiff", xyz(height, width, int(stem)))
        if place.startswith("test"):
            m = mask(height, width) if "hole" in place else np.zeros((height, width), np.uint8)
            png(kind / "gt" / f"{stem}.png", m)
    return folder


def eyecandies_sample(data: Path, stem: str, *, masked: bool | None = None, metadata: str = "", size: int = 16) -> None:
    for light in range(6):
        png(data / f"{stem}_image_{light}.png", colour(size, size, light))
    png(data / f"{stem}_depth.png", depth(size, size))
    (data / f"{stem}_info_depth.yaml").write_text("normalization:\n  max: 5.25\n  min: 3.5e+0\n")
    if masked is not None:
        png(data / f"{stem}_mask.png", np.where(mask(size, size) > 0, 255, 0).astype(np.uint8) * masked)
    if metadata:
        (data / f"{stem}_metadata.yaml").write_text(metadata)


def eyecandies_class(folder: Path) -> Path:
    for stem in ("000", "001"):
        eyecandies_sample(folder / "train/data", stem)
    eyecandies_sample(folder / "val/data", "000")
    public = folder / "test_public/data"
    eyecandies_sample(public, "00", masked=False, metadata="anomalous: 0\nbumps: 0\ncolors: 0\ndents: 0\nnormals: 0\n")
    eyecandies_sample(public, "01", masked=True, metadata="anomalous: 1\nbumps: 0\ncolors: 0\ndents: 1\nnormals: 0\n")
    eyecandies_sample(public, "02", masked=True, metadata="anomalous: 1\nbumps: 1\ncolors: 1\ndents: 0\nnormals: 0\n")
    eyecandies_sample(public, "03", masked=True)
    eyecandies_sample(public, "04", masked=False)
    eyecandies_sample(folder / "test_private/data", "00")
    return folder


def recording(folder: Path, stem: str, *, masked: bool | None = None, height: int = 8, width: int = 12) -> None:
    png(folder / f"{stem}.color.png", colour(height, width))
    png(folder / f"{stem}.depth.png", depth(height, width))
    if masked is not None:
        png(folder / f"{stem}.mask.png", mask(height, width) * np.uint8(masked))


def camera(path: Path, **changes: object) -> Path:
    """A camera.json; a change to None takes the field away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({k: v for k, v in {**CAMERA, **changes}.items() if v is not None}))
    return path


def recordings_flat(folder: Path) -> Path:
    camera(folder / "camera.json")
    for stem in ("part10", "part2"):
        recording(folder, stem)
    recording(folder, "part3", masked=True)
    recording(folder, "part4", masked=False)
    return folder


def recordings_nested(root: Path) -> Path:
    camera(root / "camera.json")
    for name in ("nut", "bolt"):
        recording(root / name / "train/good", "a1")
        recording(root / name / "validation/good", "a2")
        recording(root / name / "test/good", "a3")
        recording(root / name / "test/scratch", "a4", masked=True)
    png(root / "bolt/roi.png", mask())
    return root
