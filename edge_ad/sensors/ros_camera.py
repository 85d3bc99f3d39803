"""Colour and depth topics of a bag as a camera; the bag itself is read by :mod:`rosbag` or :mod:`mcap`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ad.errors import EdgeAdError
from edge_ad.frame import U8, Extrinsics, Frame, Intrinsics
from edge_ad.sensors import AlwaysOpen, BrokenFrame, paced
from edge_ad.sensors.ros_messages import (
    COMPRESSED,
    IMAGE,
    INFO,
    TRANSFORM,
    Transforms,
    colour_image,
    depth_image,
    intrinsics,
    seconds,
)
from edge_ad.sensors.uri import Uri

OPTIONS = ("colour", "depth", "scale", "skew", "class", "fps")
_COLOUR_WORDS, _DEPTH_WORDS, _ALIGNED_WORDS = ("color", "colour", "rgb"), ("depth",), ("aligned", "registered")


class CutShort(Exception):
    """A bag ended in the middle of a message."""


class Bag(Protocol):
    """A bag of messages."""

    path: Path

    @property
    def topics(self) -> Mapping[str, str]:
        """Message type of every topic."""

    @property
    def about(self) -> Mapping[str, str]:
        """What the recorder said: class and clock, or nothing."""

    def messages(self, topics: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """(topic, message) in order. Raises CutShort or EdgeAdError."""


@dataclass(frozen=True)
class Wanted:
    """Options of the URI: topics, metres a unit of 16 bit depth, seconds that a pair may lie apart."""

    colour: str | None
    depth: str | None
    scale_m: float
    skew_s: float
    class_name: str | None
    fps: float


def wanted(uri: Uri) -> Wanted:
    """Read a URI's options. Raises EdgeAdError."""
    uri.only(*OPTIONS)
    return Wanted(
        uri.text("colour"),
        uri.text("depth"),
        uri.number("scale", 0.001, 1e-7, 0.1),
        uri.number("skew", 20, 0, 60000) / 1e3,
        uri.text("class"),
        uri.number("fps", 0, 0, 1000),
    )


@dataclass(frozen=True)
class Streams:
    """The two topics, their intrinsics, and where the depth camera stands (None: depth is on the colour grid)."""

    colour: str
    depth: str
    intrinsics: Intrinsics
    depth_intrinsics: Intrinsics | None
    extrinsics: Extrinsics | None


class RosCamera(AlwaysOpen):
    """Pairs the pictures of two topics by the time in their headers; a picture without a partner is counted."""

    def __init__(self, uri: Uri, bag: Bag, options: Wanted) -> None:
        self._uri = str(uri)
        self._bag = bag
        self._options = options
        self._streams = find_streams(bag, options)
        self.missed = 0

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """Frames in the order of their times; a bag that is cut short ends with a BrokenFrame that says so."""
        return paced(self._frames(), self._options.fps)

    def describe(self) -> str:
        """One line for people."""
        s = self._streams
        where = "" if s.depth_intrinsics is None else ", depth on its own grid"
        return f"{self._uri}: colour {s.colour}, depth {s.depth}{where}"

    def _frames(self) -> Iterator[Frame | BrokenFrame]:
        s = self._streams
        sequence = 0
        try:
            for colour, depth in self._pairs():
                yield self._frame(colour, depth, sequence)
                sequence += 1
        except CutShort as e:
            yield BrokenFrame(
                f"{self._bag.path.stem}-{sequence:06d}",
                sequence,
                self._uri,
                f"{self._bag.path} is cut short after {sequence} frames ({e}); expected a whole recording",
            )
        if not sequence:
            raise EdgeAdError(
                f"{self._bag.path}: no pictures of {s.colour} and {s.depth} within {self._options.skew_s * 1e3:g} ms",
                "pairs",
                "raise skew=",
            )

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        s, slop = self._streams, self._options.skew_s
        waiting: dict[str, deque[Any]] = {s.colour: deque(), s.depth: deque()}
        for topic, message in self._bag.messages((s.colour, s.depth)):
            waiting[topic].append(message)
            colours, depths = waiting[s.colour], waiting[s.depth]
            while colours and depths:
                apart = seconds(colours[0]) - seconds(depths[0])
                if abs(apart) <= slop:
                    yield colours.popleft(), depths.popleft()
                else:
                    (colours if apart < 0 else depths).popleft()
                    self.missed += 1
        self.missed += sum(len(q) for q in waiting.values())

    def _frame(self, colour: Any, depth: Any, sequence: int) -> Frame | BrokenFrame:
        s, o = self._streams, self._options
        name = f"{self._bag.path.stem}-{sequence:06d}"
        try:
            picture: U8 = colour_image(s.colour, colour, self._bag.topics[s.colour])
            raw, scale = depth_image(s.depth, depth, self._bag.topics[s.depth], o.scale_m)
            self._check(picture, raw)
        except EdgeAdError as e:
            return BrokenFrame(name, sequence, self._uri, str(e))
        return Frame(
            colour=picture,
            depth=raw,
            depth_scale_m=scale,
            intrinsics=s.intrinsics,
            sequence=sequence,
            source=self._uri,
            name=name,
            class_name=o.class_name or self._bag.about.get("class") or None,
            colour_timestamp_s=seconds(colour),
            depth_timestamp_s=seconds(depth),
            clock=self._bag.about.get("clock", "ros"),
            depth_intrinsics=s.depth_intrinsics,
            extrinsics=s.extrinsics,
        )

    def _check(self, colour: U8, depth: NDArray[np.generic]) -> None:
        s = self._streams
        for what, image, k in (("colour", colour, s.intrinsics), ("depth", depth, s.depth_intrinsics or s.intrinsics)):
            if image.shape[:2] != (k.height, k.width):
                raise EdgeAdError(
                    f"{what} of {image.shape[1]} x {image.shape[0]} pixels",
                    f"{k.width} x {k.height} as its camera_info",
                )


def find_streams(bag: Bag, options: Wanted) -> Streams:
    """Choose the topics of a bag and find out how depth lies to colour. Raises EdgeAdError."""
    images = [t for t, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED)]
    if any(t.startswith("/device_0/sensor_") for t in bag.topics):
        raise EdgeAdError(f"{bag.path} was recorded by librealsense", "", f"use realsense:{bag.path}")
    colour = _choose(bag, images, "colour", options.colour, _COLOUR_WORDS, _DEPTH_WORDS)
    depth = _choose(bag, images, "depth", options.depth, _DEPTH_WORDS, ())
    infos = {topic: info_topic(topic) for topic in (colour, depth)}
    found: dict[str, Any] = {}
    transforms = Transforms()
    chain = [t for t, kind in bag.topics.items() if kind == TRANSFORM and t.endswith("tf_static")]
    try:
        for topic, message in bag.messages({*infos.values(), *chain} & set(bag.topics)):
            if bag.topics[topic] == TRANSFORM:
                transforms.add(message)
            elif bag.topics[topic] == INFO:
                found.setdefault(topic, message)
            if not chain and set(infos.values()) <= set(found):
                break
    except CutShort:
        pass  # told when the pictures are read; what came before may do
    if infos[colour] not in found:
        raise EdgeAdError(f"{bag.path}: no {infos[colour]}", f"the camera_info of {colour}", "record it as well")
    k = intrinsics(infos[colour], found[infos[colour]])
    if any(word in depth for word in _ALIGNED_WORDS):
        return Streams(colour, depth, k, None, None)
    if infos[depth] not in found:
        raise EdgeAdError(f"{bag.path}: no {infos[depth]}", f"the camera_info of {depth}", "record it as well")
    own = intrinsics(infos[depth], found[infos[depth]])
    frames = [found[infos[t]].header.frame_id for t in (depth, colour)]
    if frames[0] == frames[1]:
        return Streams(colour, depth, k, None if own == k else own, None if own == k else Extrinsics())
    between = transforms.between(*frames)
    if between is None:
        raise EdgeAdError(
            f"{bag.path}: depth is seen from {frames[0]}, colour from {frames[1]}",
            "a transform between them in /tf_static, or depth aligned to colour",
            "record /tf_static or the aligned depth topic",
        )
    return Streams(colour, depth, k, own, between)


def info_topic(topic: str) -> str:
    """``/camera/color/image_raw[/compressed]`` -> ``/camera/color/camera_info``."""
    for end in ("/compressed", "/compressedDepth"):
        topic = topic.removesuffix(end)
    return topic.rpartition("/")[0] + "/camera_info"


def _choose(
    bag: Bag, images: list[str], what: str, given: str | None, words: tuple[str, ...], never: tuple[str, ...]
) -> str:
    """The topic given, or the only one whose name tells what it is (of several depth topics the aligned one)."""
    told = ", ".join(images) or "none at all"
    if given is not None:
        if given not in images:
            raise EdgeAdError(f"{bag.path}: no picture topic {given}", f"one of: {told}")
        return given
    names = {t: t.lower() for t in images}
    fits = [t for t in images if any(w in names[t] for w in words) and not any(w in names[t] for w in never)]
    if what == "depth":
        aligned = [t for t in fits if any(w in t for w in _ALIGNED_WORDS)]
        fits = aligned or fits
    plain = [t for t in fits if bag.topics[t] == IMAGE]
    fits = plain or fits
    if len(fits) != 1:
        which = f"several {what} topics ({', '.join(fits)})" if fits else f"no {what} topic among {told}"
        raise EdgeAdError(f"{bag.path}: {which}", "one", f"name it: {what}=/TOPIC")
    return fits[0]
