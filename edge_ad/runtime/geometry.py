"""Camera geometry: depth image to organised cloud, supporting plane, clusters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import InvalidFrame
from edge_ad.frame import F32, Bool, Frame, Intrinsics
from edge_ad.runtime.frame_check import NO_DEPTH, check_depth, check_frame


@lru_cache(maxsize=8)
def _rays(k: Intrinsics) -> tuple[F32, F32]:
    """x / z and y / z of every pixel: two (H, W) float32 arrays."""
    u, v = np.meshgrid(np.arange(k.width, dtype=np.float64), np.arange(k.height, dtype=np.float64))
    if any(k.distortion):
        matrix = np.array([[k.fx, 0, k.ppx], [0, k.fy, k.ppy], [0, 0, 1]])
        pixels = np.stack([u.ravel(), v.ravel()], axis=1)[:, None, :]
        rays = cv2.undistortPoints(pixels, matrix, np.array(k.distortion))[:, 0, :]
        return (
            rays[:, 0].reshape(u.shape).astype(np.float32),
            rays[:, 1].reshape(u.shape).astype(np.float32),
        )
    return ((u - k.ppx) / k.fx).astype(np.float32), ((v - k.ppy) / k.fy).astype(np.float32)


def depth_to_xyz(depth: NDArray[np.generic], depth_scale_m: float, intrinsics: Intrinsics) -> F32:
    """(H, W) raw depth -> (H, W, 3) float32 metres in the camera frame; 0 where there is no depth.

    Raises
    ------
    InvalidFrame
        The depth image is not of the size that the intrinsics are for.
    """
    check_depth(depth, intrinsics)
    x, y = _rays(intrinsics)
    if depth.dtype == np.uint16 and depth.dtype.isnative:
        from edge_ad.runtime.cloud_kernel import cloud

        xyz = np.empty((*depth.shape, 3), dtype=np.float32)
        flat = np.ascontiguousarray(depth).reshape(-1)
        cloud(flat, np.float32(depth_scale_m), x.reshape(-1), y.reshape(-1), xyz.reshape(-1, 3))
        return xyz
    z = depth.astype(np.float32) * np.float32(depth_scale_m)
    if not np.issubdtype(depth.dtype, np.unsignedinteger):
        z[~np.isfinite(z) | (z < 0)] = 0
    xyz = np.empty((*z.shape, 3), dtype=np.float32)
    np.multiply(x, z, out=xyz[..., 0])
    np.multiply(y, z, out=xyz[..., 1])
    xyz[..., 2] = z
    return xyz


def frame_xyz(frame: Frame) -> F32:
    """The organised cloud of a frame, (H, W, 3) float32 metres, 0 where unknown; checked against the colour image.

    Raises
    ------
    InvalidFrame
        Sizes do not match, neither depth nor xyz, depth without intrinsics, or no pixel with depth.
    """
    check_frame(frame)
    if frame.xyz is not None:
        from edge_ad.runtime.cloud_kernel import known

        given = np.ascontiguousarray(frame.xyz, dtype=np.float32)
        xyz = np.empty(given.shape, dtype=np.float32)
        known(given.reshape(-1, 3), xyz.reshape(-1, 3))
    else:
        depth: NDArray[np.generic] | None = frame.depth
        if frame.depth_intrinsics is not None:
            from edge_ad.runtime.registration import registered

            depth = registered(frame).depth
        assert depth is not None and frame.intrinsics is not None
        xyz = depth_to_xyz(depth, frame.depth_scale_m, frame.intrinsics)
    # A few pixels tell of nearly every frame that it has depth; the whole is looked at only where they do not.
    if not (xyz[::8, ::8, 2] > 0).any() and not (xyz[..., 2] > 0).any():
        raise InvalidFrame(*NO_DEPTH)
    return xyz


@dataclass(frozen=True)
class Plane:
    """``normal . p + offset = 0`` in metres, normal towards the camera. ``inliers``: share of the points used."""

    normal: tuple[float, float, float]
    offset: float
    inliers: float

    def height(self, xyz: F32) -> F32:
        """Signed distance (..., 3) -> (...) float32 metres, positive on the camera's side.

        ``((nx x + ny y) + nz z) + offset``, each operation rounded: the same on every machine, and on a GPU.
        """
        from edge_ad.runtime.cloud_kernel import heights

        out = np.empty(xyz.shape[:-1], np.float32)
        flat = np.ascontiguousarray(xyz, np.float32).reshape(-1, 3)
        heights(flat, np.asarray([*self.normal, self.offset], np.float32), out.reshape(-1))
        return out


def border_ring(has_depth: Bool, share: float, region: Bool | None = None) -> Bool:
    """Pixels with depth within ``share`` of the shorter side from the border of the image, or of ``region`` (H, W)."""
    if region is None:
        region = np.ones_like(has_depth)
    rows, cols = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if not len(rows):
        return np.zeros_like(has_depth)
    width = max(1, round(share * min(rows[-1] - rows[0] + 1, cols[-1] - cols[0] + 1)))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    inner = cv2.erode(region.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray((region & (inner == 0)) & has_depth, dtype=np.bool_)


def fit_plane(points: F32, distance_m: float, iterations: int, seed: int = 0) -> Plane:
    """RANSAC, then least squares over the inliers. Seeded: the same points give the same plane.

    Parameters
    ----------
    points : (N, 3) float32 metres. distance_m : a point nearer than this is an inlier.

    Raises
    ------
    InvalidFrame
        Fewer than 3 points, or all on one line.
    """
    from edge_ad.runtime.inliers import count_inliers, inlier_moments  # numba: not before a plane is fitted

    if len(points) < 3:
        raise InvalidFrame(
            f"only {len(points)} points with depth on the border",
            "a supporting plane in view",
            'set geometry.background = "none" where there is no plane',
        )
    rng = np.random.default_rng(seed)
    n = len(points)
    search = (points if n <= 4000 else points[rng.choice(n, 4000, replace=False)]).astype(np.float64)
    triples = search[rng.integers(0, len(search), (iterations, 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    good = lengths > 1e-12
    if not good.any():
        raise InvalidFrame("the border's points lie on one line", "a supporting plane in view")
    normals = normals[good] / lengths[good, None]
    offsets = -(normals * triples[good, 0]).sum(axis=1)
    counts = count_inliers(search, normals, offsets, distance_m)
    best = int(counts.argmax())
    normal, offset = normals[best], float(offsets[best])
    columns = np.ascontiguousarray(points.T, dtype=np.float64)
    for _ in range(2):
        near, mean, scatter = inlier_moments(columns, normal, offset, distance_m)
        if near < 3:
            raise InvalidFrame("no plane fits the border's points", "a supporting plane in view")
        normal = np.linalg.eigh(scatter)[1][:, 0]
        offset = -float(normal @ mean)
    near = inlier_moments(columns, normal, offset, distance_m)[0]
    if offset < 0:  # the camera is the origin: its height is the offset
        normal, offset = -normal, -offset
    return Plane((float(normal[0]), float(normal[1]), float(normal[2])), offset, near / n)


@dataclass(frozen=True)
class Cluster:
    """One connected foreground area: mask (H, W) bool with its holes, outline (H, W) bool with gaps closed."""

    mask: Bool
    outline: Bool
    area: int


def clusters(foreground: Bool, has_depth: Bool, min_area: int) -> tuple[list[Cluster], int]:
    """Connected foreground areas, largest first, and the number of those below ``min_area`` pixels.

    Gaps of lost depth of a few pixels do not cut a part in two: the mask is closed (7 x 7) before labelling.
    An outline also contains every pixel without depth that its part encloses.
    """
    height, width = foreground.shape
    x0, y0, w, h = cv2.boundingRect(foreground.view(np.uint8))
    if not (w and h):
        return [], 0
    # Only the box around the foreground is worked on. It starts on even pixels: the labels' order goes by 2 x 2 blocks.
    box = (slice(y0 & ~1, min(height, y0 + h)), slice(x0 & ~1, min(width, x0 + w)))
    inside, no_depth = foreground[box], ~has_depth[box]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    pad = 8
    padded = cv2.copyMakeBorder(inside.view(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[pad:-pad, pad:-pad]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    found, small = [], 0
    for label in sorted(range(1, count), key=lambda i: -int(stats[i, cv2.CC_STAT_AREA])):
        if stats[label, cv2.CC_STAT_AREA] < min_area:  # closing adds pixels, so that the mask is no larger
            small += 1
            continue
        area = labels == label
        mask = area & inside
        pixels = int(np.count_nonzero(mask))
        if pixels < min_area:
            small += 1
            continue
        contours, _ = cv2.findContours(area.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros(mask.shape, dtype=np.uint8)
        cv2.drawContours(filled, contours, -1, 1, thickness=cv2.FILLED)
        outline = (area | ((filled > 0) & no_depth)) & (inside | no_depth)
        found.append(Cluster(_in_frame(mask, box, foreground.shape), _in_frame(outline, box, foreground.shape), pixels))
    return found, small


def _in_frame(mask: Bool, box: tuple[slice, slice], shape: tuple[int, ...]) -> Bool:
    """(H, W) bool of ``shape`` with ``mask`` in its ``box``, False elsewhere."""
    whole = np.zeros(shape, dtype=np.bool_)
    whole[box] = mask
    return whole
