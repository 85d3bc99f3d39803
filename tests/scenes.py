"""Frames of a fixed camera over a plane: tilt, noise, parts and a moving belt, all known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edge_ad.files import write_image
from edge_ad.frame import Frame
from tests.frames import intrinsics

HEIGHT, WIDTH = 96, 128


def scene_frame(
    number: int,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    distance: float = 0.5,
    tilt_deg: float = 0.0,
    noise_m: float = 1e-4,
    box: tuple[int, int, int, int] | None = None,
    thickness: float = 0.03,
    step: tuple[int, int] = (0, 0),
    lost: float = 0.0,
) -> Frame:
    """Plane through (0, 0, distance), tilted about the x axis; a textured box (y0, y1, x0, x1) that moves by ``step``
    pixels (x, y) a frame; Gaussian noise on the depth; a share of lost pixels."""
    rng = np.random.default_rng([31, number])
    k = intrinsics(height, width)
    v = (np.arange(height) - k.ppy)[:, None] / k.fy
    z = np.broadcast_to(distance / (1 - v * np.tan(np.radians(tilt_deg))), (height, width)).copy()
    colour = rng.integers(52, 68, (height, width, 3))
    if box is not None:
        y0, y1, x0, x1 = box
        dx, dy = step[0] * number, step[1] * number
        rows, cols = slice(max(0, y0 + dy), max(0, y1 + dy)), slice(max(0, x0 + dx), max(0, x1 + dx))
        z[rows, cols] -= thickness
        texture = np.random.default_rng(5).integers(100, 240, (y1 - y0, x1 - x0, 1))
        target = colour[rows, cols]
        colour[rows, cols] = texture[: target.shape[0], : target.shape[1]]
    z += rng.normal(0, noise_m, z.shape)
    depth = np.clip(np.round(z * 1e4), 1, 65535).astype(np.uint16)
    depth[rng.random(depth.shape) < lost] = 0
    return Frame(
        colour=colour.astype(np.uint8),
        depth=depth,
        depth_scale_m=1e-4,
        intrinsics=k,
        sequence=number,
        name=f"scene-{number:03d}",
    )


def scene_frames(count: int, **changes: object) -> list[Frame]:
    """``count`` frames of one scene."""
    return [scene_frame(i, **changes) for i in range(count)]  # type: ignore[arg-type]


def write_recordings(folder: Path, count: int, **changes: object) -> None:
    """The same as a folder of recordings."""
    for frame in scene_frames(count, **changes):
        assert frame.depth is not None and frame.intrinsics is not None
        write_image(folder / f"{frame.name}.color.png", frame.colour)
        write_image(folder / f"{frame.name}.depth.png", frame.depth)
    k = scene_frame(0).intrinsics
    assert k is not None
    camera = {n: getattr(k, n) for n in ("width", "height", "fx", "fy", "ppx", "ppy")}
    camera |= {"depth_scale_m": 1e-4, "depth_aligned_to": "color"}
    (folder / "camera.json").write_text(json.dumps(camera), encoding="utf-8")
