"""Golden frames: inputs with the float32 reference's answer, against which every engine is held."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.frame import F32, Frame, Intrinsics


@dataclass(frozen=True)
class GoldenFrame:
    """One frame and what the float32 reference made of it.

    name : file stem. frame : as the camera gave it. class_name : its class. defect : whether one was planted.
    map : (S, S) float32, the reference's anomaly map on the sample grid. score : the reference's image score.
    """

    name: str
    frame: Frame
    class_name: str
    defect: bool
    map: F32
    score: float


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an ``.npz``; never a pickle.

    Raises
    ------
    EdgeAdError
        The file is absent, damaged, or holds objects.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return {k: data[k] for k in data.files}
    except FileNotFoundError:
        raise EdgeAdError(f"{path} does not exist", "an .npz file") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as e:
        raise EdgeAdError(f"{path} cannot be read ({e})", "an .npz file of plain arrays") from None


def npz_bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    """The bytes of a compressed ``.npz``; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def golden_bytes(golden: GoldenFrame) -> bytes:
    """The ``.npz`` bytes of a golden frame, for ``golden/<name>.npz``."""
    f = golden.frame
    about = {
        "class_name": golden.class_name,
        "defect": golden.defect,
        "score": float(golden.score),
        "depth_scale_m": f.depth_scale_m,
        "intrinsics": None if f.intrinsics is None else dataclasses.asdict(f.intrinsics),
        "frame_name": f.name,
        "frame_class_name": f.class_name,
        "sequence": f.sequence,
        "source": f.source,
        "flags": list(f.flags),
    }
    arrays: dict[str, NDArray[Any]] = {
        "about": np.array(json.dumps(about, sort_keys=True)),
        "colour": f.colour,
        "map": golden.map.astype(np.float32, copy=False),
    }
    if f.depth is not None:
        arrays["depth"] = f.depth
    if f.xyz is not None:
        arrays["xyz"] = f.xyz
    return npz_bytes(arrays)


def read_golden(path: Path) -> GoldenFrame:
    """Read a file that :func:`golden_bytes` made.

    Raises
    ------
    EdgeAdError
        The file is absent, damaged, or no golden frame.
    """
    arrays = read_npz(path)
    try:
        about = json.loads(str(arrays["about"]))
        intrinsics = about["intrinsics"]
        if intrinsics is not None:
            intrinsics = Intrinsics(**{**intrinsics, "distortion": tuple(intrinsics["distortion"])})
        frame = Frame(
            colour=arrays["colour"],
            depth=arrays.get("depth"),
            depth_scale_m=float(about["depth_scale_m"]),
            xyz=arrays.get("xyz"),
            intrinsics=intrinsics,
            sequence=int(about["sequence"]),
            source=about["source"],
            name=about["frame_name"],
            class_name=about["frame_class_name"],
            flags=tuple(about["flags"]),
        )
        reference = arrays["map"]
        if reference.ndim != 2 or reference.dtype != np.float32:
            raise EdgeAdError(f"{path}: map {reference.dtype} {reference.shape}", "float32 (S, S)")
        return GoldenFrame(
            name=path.stem,
            frame=frame,
            class_name=str(about["class_name"]),
            defect=bool(about["defect"]),
            map=reference,
            score=float(about["score"]),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise EdgeAdError(f"{path} is no golden frame ({e!r})", "", "run edge-ad export again") from None


def with_answers(frames: list[GoldenFrame], path: Path) -> list[GoldenFrame]:
    """The frames with a variant's own answers, for those that it could answer.

    ``path``: an ``.npz`` of ``NAME.map`` and ``NAME.score``. Raises EdgeAdError when it is absent or damaged.
    """
    answers = read_npz(path)
    return [
        dataclasses.replace(g, map=answers[f"{g.name}.map"], score=float(answers[f"{g.name}.score"]))
        for g in frames
        if f"{g.name}.map" in answers and f"{g.name}.score" in answers
    ]
