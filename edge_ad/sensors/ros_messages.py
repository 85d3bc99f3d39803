"""ROS messages as pictures and intrinsics: sensor_msgs Image, CompressedImage, CameraInfo and static transforms."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.frame import U8, Extrinsics, Intrinsics

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, TRANSFORM = "sensor_msgs/msg/CameraInfo", "tf2_msgs/msg/TFMessage"
_COLOUR = {"rgb8": (3, None), "bgr8": (3, cv2.COLOR_BGR2RGB), "rgba8": (4, cv2.COLOR_RGBA2RGB)}
_COLOUR |= {"bgra8": (4, cv2.COLOR_BGRA2RGB), "mono8": (1, cv2.COLOR_GRAY2RGB), "8UC3": (3, cv2.COLOR_BGR2RGB)}
_DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_MODELS = ("plumb_bob", "rational_polynomial", "")


def seconds(message: Any) -> float:
    """The time in a message's header."""
    stamp = message.header.stamp
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def colour_image(topic: str, message: Any, msgtype: str) -> U8:
    """(H, W, 3) uint8 RGB. Raises EdgeAdError that names the topic."""
    if msgtype == COMPRESSED:
        image = cv2.imdecode(np.frombuffer(bytes(message.data), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise EdgeAdError(f"{topic}: a picture in the format '{message.format}' cannot be decoded", "JPEG or PNG")
        return np.ascontiguousarray(image[..., ::-1])
    if message.encoding not in _COLOUR:
        raise EdgeAdError(f"{topic}: encoding {message.encoding}", f"colour: {', '.join(_COLOUR)}")
    channels, code = _COLOUR[message.encoding]
    image = _rows(topic, message, "u1", channels)
    return np.ascontiguousarray(image if code is None else cv2.cvtColor(image, code))


def depth_image(topic: str, message: Any, msgtype: str, scale_m: float) -> tuple[NDArray[Any], float]:
    """(H, W) uint16 or float32 and metres a unit (float32 depth is in metres). Raises EdgeAdError."""
    if msgtype == COMPRESSED:
        data = bytes(message.data)
        # image_transport's compressedDepth: a header of 12 bytes, then a PNG.
        start = 12 if "compressedDepth" in message.format else 0
        image = cv2.imdecode(np.frombuffer(data[start:], np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint16 or "32FC1" in message.format:
            raise EdgeAdError(f"{topic}: depth in the format '{message.format}'", "16UC1 as PNG")
        return image.reshape(image.shape[:2]), scale_m
    if message.encoding not in _DEPTH:
        raise EdgeAdError(f"{topic}: encoding {message.encoding}", f"depth: {', '.join(_DEPTH)}")
    kind = _DEPTH[message.encoding]
    image = _rows(topic, message, kind, 1)
    if kind == "f4":
        return np.where(np.isfinite(image), image, 0).astype(np.float32), 1.0
    return image.astype(np.uint16), scale_m


def _rows(topic: str, message: Any, kind: str, channels: int) -> NDArray[Any]:
    """(H, W) or (H, W, channels), without the padding at the ends of the rows."""
    order = ">" if message.is_bigendian else "<"
    size = np.dtype(kind).itemsize * channels
    data = np.frombuffer(bytes(message.data), np.uint8)
    if message.step < message.width * size or len(data) < message.step * message.height:
        raise EdgeAdError(
            f"{topic}: {len(data)} bytes, {message.step} a row, for {message.width} x {message.height}",
            f"{message.width * size} a row",
        )
    rows = data[: message.step * message.height].reshape(message.height, message.step)[:, : message.width * size]
    shape = (message.height, message.width) + ((channels,) if channels > 1 else ())
    return np.ascontiguousarray(rows).view(order + kind).reshape(shape)


def intrinsics(topic: str, message: Any) -> Intrinsics:
    """Intrinsics of a CameraInfo (ROS 1 or 2). Raises EdgeAdError for a fisheye model."""
    k = message.k if hasattr(message, "k") else message.K
    d = message.d if hasattr(message, "d") else message.D
    if message.distortion_model not in _MODELS and any(d):
        found = f"{topic}: distortion model {message.distortion_model}"
        raise EdgeAdError(found, "plumb_bob or rational_polynomial", "rectify the pictures before recording")
    coefficients = tuple(float(v) for v in d) if any(d) else ()
    return Intrinsics(
        int(message.width), int(message.height), float(k[0]), float(k[4]), float(k[2]), float(k[5]), coefficients
    )


class Transforms:
    """Static transforms between frames of reference."""

    def __init__(self) -> None:
        self._links: dict[str, list[tuple[str, NDArray[np.float64]]]] = {}

    def add(self, message: Any) -> None:
        """Take in a TFMessage."""
        for link in message.transforms:
            q, t = link.transform.rotation, link.transform.translation
            matrix = np.eye(4)
            matrix[:3, :3] = _rotation(q.x, q.y, q.z, q.w)
            matrix[:3, 3] = t.x, t.y, t.z
            parent, child = link.header.frame_id.lstrip("/"), link.child_frame_id.lstrip("/")
            # p_parent = matrix @ p_child
            self._links.setdefault(child, []).append((parent, matrix))
            self._links.setdefault(parent, []).append((child, np.asarray(np.linalg.inv(matrix), np.float64)))

    def between(self, source: str, target: str) -> Extrinsics | None:
        """``p_target = R p_source + t``, or None when no chain of transforms joins them."""
        source, target = source.lstrip("/"), target.lstrip("/")
        known, todo = {source: np.eye(4)}, [source]
        while todo:
            here = todo.pop(0)
            for there, matrix in self._links.get(here, ()):
                if there not in known:
                    known[there] = matrix @ known[here]
                    todo.append(there)
        if target not in known:
            return None
        m = known[target]
        return Extrinsics(tuple(float(v) for v in m[:3, :3].ravel()), tuple(float(v) for v in m[:3, 3]))


def _rotation(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    n = (x * x + y * y + z * z + w * w) or 1.0
    s = 2.0 / n
    return np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )
