"""ROS 1 and ROS 2 bags as a camera: ``rosbag:PATH`` (package ``rosbags``; no ROS needed)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError, missing_package, one_line
from edge_ad.sensors.ros_camera import CutShort, RosCamera, wanted
from edge_ad.sensors.uri import Uri

EXTRA = "rosbag"


def open_uri(uri: Uri) -> RosCamera:
    """``rosbag:PATH[?colour=&depth=&scale=0.001&skew=20&class=&fps=]``: a ROS 2 bag's folder or a ROS 1 .bag.

    Raises EdgeAdError when it is missing, broken, foreign, or lacks what a frame needs.
    """
    options = wanted(uri)
    if not uri.path:
        raise EdgeAdError(f"{uri} names no bag", "rosbag:PATH")
    return RosCamera(uri, RosBag(Path(uri.path)), options)


class RosBag:
    """Messages of a bag by way of ``rosbags``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: Mapping[str, str] = {}
        if not path.exists():
            raise EdgeAdError(f"{path} does not exist", "a ROS 2 bag's folder or a ROS 1 .bag")
        if path.is_file() and path.suffix == ".mcap":
            raise EdgeAdError(f"{path} is one MCAP file", "a bag's folder", f"use mcap:{path}")
        if path.is_dir() and not (path / "metadata.yaml").is_file():
            raise EdgeAdError(f"{path} is no ROS 2 bag (no metadata.yaml)", "the folder that ros2 bag record wrote")
        with self._open() as reader:
            self.topics = {c.topic: c.msgtype for c in reader.connections}

    def _open(self) -> Any:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise missing_package("rosbags", EXTRA) from None
        try:
            reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
        except Exception as e:  # the package raises what its parsers meet
            raise EdgeAdError(f"{self.path} cannot be read ({_line(e)})", "a whole ROS bag") from None
        return _Closing(reader)

    def messages(self, topics: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """(topic, message) in the bag's order."""
        chosen = set(topics)
        with self._open() as reader:
            connections = [c for c in reader.connections if c.topic in chosen]
            if not connections:
                return
            try:
                for connection, _, data in reader.messages(connections=connections):
                    yield connection.topic, reader.deserialize(data, connection.msgtype)
            except GeneratorExit:
                raise
            except (sqlite3.Error, EOFError, ValueError, OSError, AssertionError) as e:
                raise CutShort(_line(e)) from None
            except Exception as e:
                if type(e).__module__.startswith("rosbags"):
                    raise CutShort(_line(e)) from None
                raise


class _Closing:
    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *exc: object) -> None:
        self._reader.close()


def _line(error: BaseException) -> str:
    return one_line(error) or type(error).__name__
