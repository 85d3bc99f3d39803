"""Real frames to calibrate on: from a folder, a camera, or the bundle's own golden frames. Lean."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from edge_ad.bundle import Bundle
from edge_ad.data.dataset import Dataset, Item
from edge_ad.errors import EdgeAdError, InvalidFrame
from edge_ad.frame import Frame

FEW = 8
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to ``count`` items, the classes in turn and evenly spaced within each."""
    classes = list(dict.fromkeys(i.class_name for i in items))
    share = max(1, count // max(1, len(classes)))
    out: list[Item] = []
    for name in classes:
        own = [i for i in items if i.class_name == name]
        picked = np.unique(np.linspace(0, len(own) - 1, min(share, len(own))).round().astype(int))
        out += [own[i] for i in picked]
    return out[:count]


def frames_of_data(bundle: Bundle, data: Dataset, count: int, track: Track | None = None) -> list[tuple[Frame, str]]:
    """Good frames of the bundle's classes: held-out ones where there are any, else those of the fit."""
    items: list[Item] = []
    for name in bundle.class_names:
        good = data.select(name, "validation", "good") or data.select(name, "train", "good")
        items += good or data.select(name, "test", "good")
    if not items:
        raise EdgeAdError(
            f"{data.root} has no good parts of {', '.join(bundle.class_names)}", "parts of the bundle's classes"
        )
    chosen = spread(items, count)
    out = []
    for item in track(chosen, len(chosen), "read") if track else chosen:
        try:
            out.append((item.frame(), item.class_name))
        except InvalidFrame:
            continue
    return out


def frames_of_camera(uri: str, count: int, class_name: str = "", track: Track | None = None) -> list[tuple[Frame, str]]:
    """The first ``count`` readable frames of a camera; ``class_name`` for all of them, else the source's own."""
    from edge_ad.sensors import BrokenFrame, open_camera

    out: list[tuple[Frame, str]] = []
    with open_camera(uri) as camera:
        for frame in track(camera, count, "read") if track else camera:
            if not isinstance(frame, BrokenFrame):
                out.append((frame, class_name or frame.class_name or ""))
            if len(out) == count:
                break
    return out


def frames_of_bundle(bundle: Bundle) -> list[tuple[Frame, str]]:
    """The golden frames: real ones, and each once more with a planted defect."""
    return [(g.frame, g.class_name) for g in bundle.golden()]


def refuse_constant(frames: Sequence[tuple[Frame, str]], where: str) -> None:
    """Refuse frames that say nothing about real ones: none, one colour or one depth everywhere, or all the same.

    Ranges from such frames are far too narrow, and INT8 then clips every real part.

    Raises
    ------
    EdgeAdError
        What the frames are, and what is needed.
    """
    remedy = "record parts as the line shows them, e.g. edge-ad calibrate int8 BUNDLE --data DIR"
    if not frames:
        raise EdgeAdError(f"{where} gave no readable frame", "real frames of parts", remedy)
    for frame, _ in frames:
        name = frame.name or f"frame {frame.sequence}"
        if frame.colour.min() == frame.colour.max():
            raise EdgeAdError(
                f"{where}: the colour of {name} is {int(frame.colour.min())} everywhere", "real frames of parts", remedy
            )
        depth = frame.depth if frame.depth is not None else None if frame.xyz is None else frame.xyz[..., 2]
        if depth is not None and depth.min() == depth.max():
            raise EdgeAdError(
                f"{where}: the depth of {name} is {float(depth.min()):g} everywhere", "real frames of parts", remedy
            )
    digests = {hashlib.sha256(frame.colour.tobytes()).digest() for frame, _ in frames}
    if len(frames) > 1 and len(digests) == 1:
        raise EdgeAdError(f"{where}: all {len(frames)} frames are the same", "different parts", remedy)
