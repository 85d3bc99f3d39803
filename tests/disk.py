"""The small frames of ``tests.training.tiny`` on disk, as nested recordings, and bundles with limits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge_ad.bundle import Bundle, Threshold
from edge_ad.export.golden import plant_defect
from edge_ad.files import write_json
from edge_ad.frame import Frame
from tests.training.tiny import make_frame

CLASSES = ("hex_nut", "cookie")


def write_recording(folder: Path, stem: str, frame: Frame, mask: np.ndarray | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    assert frame.depth is not None
    cv2.imwrite(str(folder / f"{stem}.color.png"), np.ascontiguousarray(frame.colour[..., ::-1]))
    cv2.imwrite(str(folder / f"{stem}.depth.png"), frame.depth)
    if mask is not None:
        cv2.imwrite(str(folder / f"{stem}.mask.png"), mask.astype(np.uint8) * 255)


def write_camera(folder: Path) -> None:
    k = make_frame("cookie", 0).intrinsics
    assert k is not None
    camera = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "ppx": k.ppx, "ppy": k.ppy}
    write_json(folder / "camera.json", {**camera, "depth_scale_m": 1e-4, "depth_aligned_to": "color"})


def write_recordings(folder: Path, count: int = 3, change: Callable[[int, Frame], Frame] | None = None) -> Path:
    """A camera and ``count`` cookies in one folder, each as ``change(number, frame)`` leaves it."""
    for i in range(count):
        frame = make_frame("cookie", i)
        write_recording(folder, f"r{i}", frame if change is None else change(i, frame))
    write_camera(folder)
    return folder


def write_parts(root: Path, *, train: int = 1, validation: int = 3, good: int = 2, defective: int = 2) -> Path:
    """Both classes with good parts in every split and defective ones (with masks) in the test split."""
    write_camera(root)
    for name in CLASSES:
        number = 0
        for split, count in (("train", train), ("validation", validation), ("test", good)):
            for _ in range(count):
                write_recording(root / name / split / "good", f"{number:03d}", make_frame(name, number))
                number += 1
        for i in range(defective):
            frame = make_frame(name, number + i)
            assert frame.depth is not None
            part = frame.depth < 3950
            part[:8, :8] = False
            planted = plant_defect(frame, part, seed=i)
            mask = (planted.colour != frame.colour).any(axis=2)
            write_recording(root / name / "test/dent", f"{i:03d}", planted, mask)
    return root


def copy_with_limits(source: Path, target: Path, value: float) -> Path:
    """A copy of a bundle in which every class has the threshold ``value``."""
    shutil.copytree(source, target)
    bundle = Bundle.open(target)
    limit = Threshold(value, value, 20, 0.05, "2025-01-01T00:00:00+00:00")
    bundle.with_thresholds(dict.fromkeys(bundle.class_names, limit), "fp32")
    return target
