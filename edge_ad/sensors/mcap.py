"""MCAP files with ROS messages as a camera: ``mcap:FILE``, among them those of ``edge-ad record --raw``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_ad.errors import EdgeAdError, missing_package, one_line
from edge_ad.sensors.ros_camera import CutShort, RosCamera, wanted
from edge_ad.sensors.uri import Uri

EXTRA = "mcap"
MAGIC = b"\x89MCAP0\r\n"
ABOUT = "edge-ad"
"""Name of the metadata record that :mod:`edge_ad.sensors.mcap_writer` adds: class and clock."""
_ENCODINGS = ("cdr", "ros1")


def open_uri(uri: Uri) -> RosCamera:
    """``mcap:FILE[?colour=&depth=&scale=0.001&skew=20&class=&fps=]``. Raises EdgeAdError.

    The file is read in order, not by its index: one that was cut short (a recorder that was killed) gives every whole
    frame and then says that it is cut.
    """
    options = wanted(uri)
    if not uri.path:
        raise EdgeAdError(f"{uri} names no file", "mcap:FILE")
    return RosCamera(uri, McapBag(Path(uri.path)), options)


class McapBag:
    """Messages of an MCAP file whose channels are ROS 2 (``cdr``) or ROS 1 (``ros1``)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, str] = {}
        self.about: dict[str, str] = {}
        try:
            with open(path, "rb") as f:
                head = f.read(len(MAGIC))
        except FileNotFoundError:
            raise EdgeAdError(f"{path} does not exist", "an MCAP file") from None
        except OSError as e:
            raise EdgeAdError(f"{path} cannot be read ({e.strerror})", "an MCAP file") from None
        if head != MAGIC:
            raise EdgeAdError(
                f"{path} {'is no MCAP file' if head else 'is empty'}", "a file that starts with MCAP's magic"
            )
        foreign = set()
        try:
            for record in self._records():
                kind = type(record).__name__
                if kind == "Channel":
                    name = self._schemas.get(record.schema_id, "")
                    if record.message_encoding in _ENCODINGS:
                        self.topics[record.topic] = name if "/msg/" in name else name.replace("/", "/msg/", 1)
                    else:
                        foreign.add(record.message_encoding)
                elif kind == "Metadata" and record.name == ABOUT:
                    self.about = dict(record.metadata)
        except CutShort:
            pass  # the frames before the cut are good; the reader says so when it gets there
        if not self.topics:
            what = f"messages in {', '.join(sorted(foreign))}" if foreign else "no messages"
            raise EdgeAdError(f"{path} holds {what}", "ROS 2 messages (cdr): sensor_msgs Image and CameraInfo")

    def _records(self) -> Iterator[Any]:
        """Schemas, channels, messages and metadata, in order. Raises CutShort."""
        try:
            from mcap.exceptions import McapError
            from mcap.records import Schema
            from mcap.stream_reader import StreamReader
        except ImportError:
            raise missing_package("mcap", EXTRA) from None
        import struct
        import zlib

        self._schemas: dict[int, str] = {}
        footer = False
        with open(self.path, "rb") as f:
            records = StreamReader(f).records
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    break
                except (McapError, EOFError, struct.error, zlib.error, ValueError, OSError, RuntimeError) as e:
                    raise CutShort(one_line(e) or type(e).__name__) from None
                kind = type(record).__name__
                if kind == "Schema":
                    assert isinstance(record, Schema)
                    self._schemas[record.id] = record.name
                footer = footer or kind == "Footer"
                yield record
        if not footer:
            raise CutShort("no footer")

    def messages(self, topics: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """(topic, message) in the file's order."""
        chosen, channels = set(topics), {}
        for record in self._records():
            kind = type(record).__name__
            if kind == "Channel":
                channels[record.id] = record
            elif kind == "Message":
                channel = channels.get(record.channel_id)
                if channel is None or channel.topic not in chosen:
                    continue
                store = _store(channel.message_encoding)
                read = store.deserialize_cdr if channel.message_encoding == "cdr" else store.deserialize_ros1
                yield channel.topic, read(record.data, self.topics[channel.topic])


@lru_cache(maxsize=2)
def _store(encoding: str) -> Any:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise missing_package("rosbags", EXTRA) from None
    return get_typestore(Stores.ROS2_HUMBLE if encoding == "cdr" else Stores.ROS1_NOETIC)
