"""What is refused of a frame before its pixels are looked at: shapes, types, missing intrinsics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import InvalidFrame
from edge_ad.frame import Extrinsics, Frame, Intrinsics

MAX_SPLAT = 16
"""Colour pixels a depth pixel may cover along one side; more means intrinsics that cannot be right."""


def check_frame(frame: Frame) -> None:
    """Refuse a frame whose colour and depth do not belong together.

    Raises
    ------
    InvalidFrame
        Sizes do not match, neither depth nor xyz, depth without intrinsics.
    """
    if frame.colour.ndim != 3 or frame.colour.shape[2] != 3 or frame.colour.dtype != np.uint8:
        raise InvalidFrame(f"colour of shape {frame.colour.shape}, {frame.colour.dtype}", "(H, W, 3) uint8 RGB")
    if frame.xyz is not None:
        if frame.xyz.ndim != 3 or frame.xyz.shape[2] != 3:
            raise InvalidFrame(f"xyz of shape {frame.xyz.shape}", "(H, W, 3) metres")
        height, width = frame.xyz.shape[:2]
    elif frame.depth is not None:
        if frame.intrinsics is None:
            raise InvalidFrame("a depth image without intrinsics", "a camera.json beside the recording")
        if frame.depth_intrinsics is not None:
            check_registration(frame.depth, frame.depth_intrinsics, frame.intrinsics, frame.extrinsics)
        else:
            check_depth(frame.depth, frame.intrinsics)
        height, width = frame.intrinsics.height, frame.intrinsics.width
    else:
        raise InvalidFrame("a frame with neither depth nor xyz", "one of them")
    if (height, width) != frame.shape:
        h, w = frame.shape
        raise InvalidFrame(
            f"colour of {w} x {h} pixels and depth of {width} x {height}",
            "both on one grid",
            "align depth to colour when recording",
        )


def check_depth(depth: NDArray[Any], intrinsics: Intrinsics) -> None:
    """Refuse a depth image that is not of its intrinsics' size; raises InvalidFrame."""
    if depth.ndim != 2:
        raise InvalidFrame(f"depth of shape {depth.shape}", "(H, W)")
    if depth.shape != (intrinsics.height, intrinsics.width):
        raise InvalidFrame(
            f"depth of {depth.shape[1]} x {depth.shape[0]} pixels",
            f"{intrinsics.width} x {intrinsics.height}, the size of the intrinsics",
        )


def check_registration(
    depth: NDArray[Any], source: Intrinsics, target: Intrinsics | None, extrinsics: Extrinsics | None
) -> None:
    """Refuse depth on its own grid that cannot be carried to the colour grid; raises InvalidFrame."""
    if target is None or extrinsics is None:
        raise InvalidFrame("depth on its own grid", "intrinsics of the colour camera and extrinsics to it")
    if depth.shape != (source.height, source.width):
        raise InvalidFrame(
            f"depth of {' x '.join(str(n) for n in depth.shape[::-1])} pixels",
            f"{source.width} x {source.height}, the size of the depth camera's intrinsics",
        )
    if len(target.distortion) > 12 and any(target.distortion[12:]):
        raise InvalidFrame("a colour camera with a tilted sensor", "at most 12 distortion coefficients")


def check_splat(widest: int) -> None:
    """Refuse a registration that met a square of ``widest`` colour pixels along one side; raises InvalidFrame."""
    if widest > MAX_SPLAT:
        raise InvalidFrame(
            f"a depth pixel covers {widest} colour pixels along one side",
            f"at most {MAX_SPLAT}",
            "check the intrinsics and extrinsics",
        )


NO_DEPTH = ("no pixel has depth", "a depth image that is not all zero")
