"""Write synthetic parts in the layout of MVTec 3D-AD, several at a time."""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from edge_ad.data.synthetic.parts import CLASSES, SyntheticPart, kinds_for, synthesize
from edge_ad.data.synthetic.render import INTRINSICS
from edge_ad.data.synthetic.sensor import DEPTH_SIGMA_MM
from edge_ad.errors import EdgeAdError
from edge_ad.files import new_folder
from edge_ad.parallel import cores, end_with_parent

SIZES: dict[str, dict[str, int]] = {
    "full": {"train": 60, "validation": 20, "good": 40, "defective": 80},
    "small": {"train": 12, "validation": 4, "good": 6, "defective": 10},
}
_SPLIT_WORD = {"train": 0, "validation": 1, "good": 2, "defective": 3}


@dataclass(frozen=True)
class PartOrder:
    """One part to be made: where it goes (``folder/{rgb,xyz,gt}/NNN``) and from which seed."""

    class_name: str
    folder: str
    number: int
    seed: tuple[int, ...]
    defect: str | None

    @property
    def has_gt(self) -> bool:
        """Ground truth belongs to the test split alone."""
        return "/test/" in self.folder


def orders(classes: Sequence[str], size: str, seed: int) -> list[PartOrder]:
    """Every part of a data set. Its seed depends on its own place alone, not on the other classes."""
    if size not in SIZES:
        raise EdgeAdError(f"parts '{size}'", "one of " + ", ".join(SIZES))
    unknown = [c for c in classes if c not in CLASSES]
    if unknown or not classes:
        raise EdgeAdError(f"class '{', '.join(unknown)}'", "some of " + ", ".join(CLASSES))
    if seed < 0:
        raise EdgeAdError(f"seed {seed}", "a whole number >= 0")
    counts, made = SIZES[size], []
    for name in dict.fromkeys(classes):
        for split, folder in (("train", "train/good"), ("validation", "validation/good"), ("good", "test/good")):
            for i in range(counts[split]):
                made.append(PartOrder(name, f"{name}/{folder}", i, (seed, _SPLIT_WORD[split], i), None))
        kinds = kinds_for(name)
        for i in range(counts["defective"]):
            kind, number = kinds[i % len(kinds)], i // len(kinds)
            made.append(PartOrder(name, f"{name}/test/{kind}", number, (seed, _SPLIT_WORD["defective"], i), kind))
    return made


def _encode_png(image: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise EdgeAdError(f"cannot encode an image of shape {image.shape} as PNG")
    return data.tobytes()


def encode(part: SyntheticPart, with_gt: bool) -> dict[str, bytes]:
    """File contents by ``rgb.png``, ``xyz.tiff`` and, in test splits, ``gt.png``."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, part.xyz, photometric="rgb", metadata=None, software="edge-ad")
    files = {"rgb.png": _encode_png(np.ascontiguousarray(part.colour[..., ::-1])), "xyz.tiff": buffer.getvalue()}
    if with_gt:
        files["gt.png"] = _encode_png(part.gt.astype(np.uint8) * 255)
    return files


def _make(root: str, order: PartOrder) -> dict[str, Any]:
    part = synthesize(order.class_name, order.seed, order.defect)
    for name, data in encode(part, order.has_gt).items():
        kind, suffix = name.split(".")
        path = Path(root, order.folder, kind, f"{order.number:03d}.{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    entry: dict[str, Any] = {"name": f"{order.folder}/{order.number:03d}", "class": order.class_name}
    entry |= {"split": order.folder.split("/")[1], "seed": list(order.seed), "defect": None}
    entry["lost_share"] = round(float(((part.xyz[..., 2] == 0) & part.part).sum() / part.part.sum()), 5)
    if part.defect is not None:
        info = {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(part.defect).items()}
        entry["defect"] = info
    return entry


def _one_thread() -> None:
    cv2.setNumThreads(1)
    end_with_parent()


def write_dataset(
    out: Path,
    *,
    classes: Sequence[str] = CLASSES,
    size: str = "full",
    seed: int = 0,
    jobs: int = 0,
    replace: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Write a data set under ``out``; it appears under that name only when it is complete.

    Parameters
    ----------
    size : ``"full"`` or ``"small"`` (see :data:`SIZES`). jobs : processes, 0 for one a core.
    progress : called with (done, total).

    Returns the entries of ``parts.json``. The files are the same for any number of jobs.
    Raises EdgeAdError when ``out`` exists (unless ``replace``) or an argument is not known.
    """
    todo = orders(classes, size, seed)
    if jobs < 0:
        raise EdgeAdError(f"jobs {jobs}", "a whole number >= 0 (0: one a core)")
    jobs = min(jobs or cores(), len(todo))
    entries: list[dict[str, Any]] = []
    with new_folder(out, replace=replace, marker="parts.json") as root:

        def done(entry: dict[str, Any]) -> None:
            entries.append(entry)
            if progress is not None:
                progress(len(entries), len(todo))

        if jobs == 1:
            for order in todo:
                done(_make(str(root), order))
        else:
            # Fresh processes: a forked copy of a threaded parent may hang.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
                for entry in pool.map(_make, [str(root)] * len(todo), todo, chunksize=4):
                    done(entry)
        _describe(root, entries, classes, size, seed)
    return entries


def _describe(root: Path, entries: list[dict[str, Any]], classes: Sequence[str], size: str, seed: int) -> None:
    k = INTRINSICS
    camera: dict[str, Any] = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "ppx": k.ppx, "ppy": k.ppy}
    camera |= {"depth_scale_m": 0.001, "depth_aligned_to": "color"}
    (root / "camera.json").write_text(json.dumps(camera, indent=2) + "\n", encoding="utf-8")
    listing = {
        "layout": "mvtec3d",
        "seed": seed,
        "parts": size,
        "classes": list(dict.fromkeys(classes)),
        "counts": SIZES[size],
        "depth_sigma_mm": DEPTH_SIGMA_MM,
        "items": entries,
    }
    (root / "parts.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")
