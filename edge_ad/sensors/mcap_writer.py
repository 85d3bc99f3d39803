"""Raw recording of any camera as MCAP with ROS 2 messages: Foxglove and ROS read it, and so does ``mcap:FILE``."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_ad.errors import EdgeAdError, InvalidFrame, missing_package
from edge_ad.frame import Extrinsics, Frame, Intrinsics
from edge_ad.sensors.mcap import ABOUT, EXTRA
from edge_ad.sensors.ros_messages import IMAGE, INFO, TRANSFORM

COLOUR_FRAME, DEPTH_FRAME = "camera_color_optical_frame", "camera_depth_optical_frame"
MILLIMETRE = 0.001


class McapWriter:
    """Context manager; writes ``FILE.partial.mcap``, which gets its name when the recording ends well or by a signal.

    Each picture is a chunk of its own and each frame is flushed: what a killed recorder leaves is read up to its last
    whole frame. Depth in millimetres stays 16UC1; any other unit becomes 32FC1 in metres, as ROS has it (REP 118).
    """

    def __init__(self, path: Path, class_name: str | None = None) -> None:
        self._path = path
        self._class = class_name
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._channels: dict[str, tuple[int, str]] = {}
        self._frames = 0

    def __enter__(self) -> McapWriter:
        """Open the file. Raises EdgeAdError when it exists already or cannot be written."""
        try:
            from mcap.writer import CompressionType, Writer
            from rosbags.typesys import Stores, get_typestore
        except ImportError as e:
            raise missing_package(e.name or "mcap", EXTRA) from None
        if self._path.exists():
            raise EdgeAdError(f"{self._path} exists already", "a new file")
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        try:
            self._file = open(self._partial, "wb")  # noqa: SIM115  (closed by __exit__)
        except OSError as e:
            raise EdgeAdError(f"cannot write {self._partial} ({e.strerror})", "a folder that can be written") from None
        self._writer = Writer(self._file, chunk_size=1, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="edge-ad")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the index and give the file its name; an empty recording is removed."""
        try:
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if self._frames:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def write(self, frame: Frame) -> str:
        """Write one frame; returns its name. Raises InvalidFrame for a frame without intrinsics or depth."""
        if frame.intrinsics is None:
            raise InvalidFrame("a frame without intrinsics", "a camera that gives them")
        aligned = frame.depth_intrinsics is None
        depth = _depth(frame)
        if not self._frames:
            about = {"class": self._class or frame.class_name or "", "clock": frame.clock}
            self._writer.add_metadata(ABOUT, about)
            if frame.extrinsics is not None:
                self._put("/tf_static", TRANSFORM, self._transform(frame.extrinsics), 0)
        names = ("/camera/color", "/camera/aligned_depth_to_color" if aligned else "/camera/depth")
        ids = (COLOUR_FRAME, COLOUR_FRAME if aligned else DEPTH_FRAME)
        for name, frame_id, k, image, seconds in (
            (names[0], ids[0], frame.intrinsics, frame.colour, frame.colour_timestamp_s),
            (names[1], ids[1], frame.depth_intrinsics or frame.intrinsics, depth, frame.depth_timestamp_s),
        ):
            time_ns = max(0, round(seconds * 1e9))
            self._put(f"{name}/camera_info", INFO, self._info(k, frame_id, time_ns), time_ns)
            self._put(f"{name}/image_raw", IMAGE, self._image(image, frame_id, time_ns), time_ns)
        try:
            self._file.flush()
        except OSError as e:
            raise EdgeAdError(f"cannot write {self._partial} ({e.strerror})", "", "free some space") from None
        self._frames += 1
        return f"{self._path.name}[{self._frames - 1}]"

    def _put(self, topic: str, kind: str, message: Any, time_ns: int) -> None:
        if topic not in self._channels:
            text, _ = self._store.generate_msgdef(kind, ros_version=2)
            schema = self._writer.register_schema(kind, "ros2msg", text.encode())
            self._channels[topic] = (self._writer.register_channel(topic, "cdr", schema), kind)
        channel, _ = self._channels[topic]
        data = bytes(self._store.serialize_cdr(message, kind))
        self._writer.add_message(channel, time_ns, data, time_ns, sequence=self._frames)

    def _header(self, frame_id: str, time_ns: int) -> Any:
        types = self._store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=time_ns // 10**9, nanosec=time_ns % 10**9)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def _image(self, image: np.ndarray, frame_id: str, time_ns: int) -> Any:
        encoding = {"uint8": "rgb8", "uint16": "16UC1", "float32": "32FC1"}[image.dtype.name]
        data = np.ascontiguousarray(image).view(np.uint8).reshape(-1)
        return self._store.types[IMAGE](
            header=self._header(frame_id, time_ns),
            height=image.shape[0],
            width=image.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=data.size // image.shape[0],
            data=data,
        )

    def _info(self, k: Intrinsics, frame_id: str, time_ns: int) -> Any:
        roi = self._store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        matrix = np.array([k.fx, 0, k.ppx, 0, k.fy, k.ppy, 0, 0, 1], np.float64)
        return self._store.types[INFO](
            header=self._header(frame_id, time_ns),
            height=k.height,
            width=k.width,
            distortion_model="rational_polynomial" if len(k.distortion) > 5 else "plumb_bob",
            d=np.array(k.distortion or [0.0] * 5, np.float64),
            k=matrix,
            r=np.eye(3).reshape(-1),
            p=np.insert(matrix.reshape(3, 3), 3, 0, axis=1).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def _transform(self, e: Extrinsics) -> Any:
        from scipy.spatial.transform import Rotation

        types = self._store.types
        x, y, z, w = (float(v) for v in Rotation.from_matrix(np.reshape(e.rotation, (3, 3))).as_quat())
        link = types["geometry_msgs/msg/TransformStamped"](
            header=self._header(COLOUR_FRAME, 0),
            child_frame_id=DEPTH_FRAME,
            transform=types["geometry_msgs/msg/Transform"](
                translation=types["geometry_msgs/msg/Vector3"](*e.translation),
                rotation=types["geometry_msgs/msg/Quaternion"](x, y, z, w),
            ),
        )
        return types[TRANSFORM](transforms=[link])


def _depth(frame: Frame) -> np.ndarray:
    """(H, W) uint16 millimetres, or float32 metres: exactly what the cloud is made from."""
    if frame.depth is None:
        if frame.xyz is None:
            raise InvalidFrame("a frame with neither depth nor xyz", "one of them")
        return np.asarray(frame.xyz[..., 2], np.float32)
    if frame.depth.dtype == np.uint16 and frame.depth_scale_m == MILLIMETRE:
        return frame.depth
    return np.asarray(frame.depth.astype(np.float32) * np.float32(frame.depth_scale_m), np.float32)
