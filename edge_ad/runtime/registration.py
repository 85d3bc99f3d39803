"""Depth from the depth camera's grid onto the colour camera's, on the CPU.

The same rule as ``rs2::align``: the square of a depth pixel is carried to the colour image corner by corner, every
pixel of the rectangle between is given its depth, the nearest wins. A depth pixel whose rectangle reaches beyond the
image is left out. Unlike the SDK, which copies the depth camera's z, the z written is that of the colour camera.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.frame import F32, Extrinsics, Frame, Intrinsics
from edge_ad.runtime.frame_check import check_registration, check_splat


def registered(frame: Frame) -> Frame:
    """The frame with its depth on the colour grid; itself when it is there already.

    Raises InvalidFrame when the frame names a depth grid and lacks what it takes to leave it.
    """
    if frame.depth_intrinsics is None or frame.depth is None:
        return frame
    check_registration(frame.depth, frame.depth_intrinsics, frame.intrinsics, frame.extrinsics)
    assert frame.intrinsics is not None and frame.extrinsics is not None
    depth = register_depth(frame.depth, frame.depth_scale_m, frame.depth_intrinsics, frame.intrinsics, frame.extrinsics)
    return replace(frame, depth=depth, depth_intrinsics=None, extrinsics=None)


def register_depth(
    depth: NDArray[Any], depth_scale_m: float, source: Intrinsics, target: Intrinsics, extrinsics: Extrinsics
) -> NDArray[Any]:
    """(h, w) depth on ``source``'s grid -> (H, W) on ``target``'s, same dtype and scale; 0 where nothing is seen.

    Raises
    ------
    InvalidFrame
        The depth is not of the size of ``source``, or a depth pixel would cover more than ``MAX_SPLAT`` pixels.
    """
    from edge_ad.runtime.registration_kernel import splat

    check_registration(depth, source, target, extrinsics)
    rays = corner_rays(source, extrinsics)
    camera = colour_camera(target, extrinsics)
    out = np.zeros((target.height, target.width), dtype=depth.dtype)
    whole = np.issubdtype(depth.dtype, np.integer)
    widest = splat(
        np.ascontiguousarray(depth).reshape(-1),
        np.float32(depth_scale_m),
        *rays,
        camera[:3],
        camera[3:7],
        camera[7:],
        np.float32(np.iinfo(depth.dtype).max if whole else 0),
        out,
    )
    check_splat(widest)
    return out


def colour_camera(target: Intrinsics, extrinsics: Extrinsics) -> F32:
    """(19,) float32: translation, fx fy ppx ppy, OpenCV's 12 distortion coefficients of the colour camera."""
    k = (*target.distortion, *[0.0] * 12)[:12]
    return np.array([*extrinsics.translation, target.fx, target.fy, target.ppx, target.ppy, *k], np.float32)


@lru_cache(maxsize=4)
def corner_rays(source: Intrinsics, extrinsics: Extrinsics) -> tuple[F32, F32]:
    """Rays with z = 1 through the upper left and lower right corners of every depth pixel, turned into the colour
    camera's axes: two (3, h * w) float32 arrays."""
    rotation = np.asarray(extrinsics.rotation, np.float64).reshape(3, 3)
    rays = []
    for shift in (-0.5, 0.5):
        u, v = np.meshgrid(np.arange(source.width) + shift, np.arange(source.height) + shift)
        if any(source.distortion):
            matrix = np.array([[source.fx, 0, source.ppx], [0, source.fy, source.ppy], [0, 0, 1]])
            pixels = np.stack([u.ravel(), v.ravel()], axis=1)[:, None, :]
            x, y = cv2.undistortPoints(pixels, matrix, np.array(source.distortion))[:, 0, :].T
        else:
            x, y = ((u - source.ppx) / source.fx).ravel(), ((v - source.ppy) / source.fy).ravel()
        rays.append(np.ascontiguousarray(rotation @ np.stack([x, y, np.ones_like(x)]), np.float32))
    return rays[0], rays[1]
