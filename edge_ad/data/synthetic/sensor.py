"""What the sensor adds: shot noise in colour, smoothed noise and missing points in depth."""

from __future__ import annotations

import cv2
import numpy as np

from edge_ad.data.synthetic.grid import Rng
from edge_ad.data.synthetic.render import SIZE, View, rays
from edge_ad.frame import F32, U8

DEPTH_SIGMA_MM = 0.14


def colour_image(view: View, rng: Rng) -> U8:
    """(H, W, 3) uint8 RGB with shot noise (grows with the root of the signal) and read noise."""
    shot = rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    noisy = view.colour + shot * (np.float32(0.9) + np.float32(0.11) * np.sqrt(view.colour))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def point_cloud(view: View, rng: Rng) -> F32:
    """(H, W, 3) float32 metres, zeros where depth is missing; every point lies on its pixel's ray.

    Depth noise is 0.14 mm after the smoothing of a structured-light sensor. Points are lost at steps,
    in highlights and in small random spots, on good parts as well.
    """
    raw = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), dtype=np.float32), (0, 0), 0.8)
    distance = view.distance + raw * np.float32(DEPTH_SIGMA_MM / float(raw.std()))
    chance = rng.random((SIZE, SIZE), dtype=np.float32)
    lost = (chance < 0.35 * np.clip((view.steepness - 4.0) / 5.0, 0, 1)) | (view.glare > 0.55 + 0.3 * chance)
    spots = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE), dtype=np.float32), (0, 0), 1.3)
    lost |= spots > np.float32(2.75) * np.float32(spots.std())
    metres = np.where(lost, 0, distance * np.float32(1e-3)).astype(np.float32)
    return np.asarray(rays() * metres[..., None], dtype=np.float32)
