"""A folder as a camera: any data set that :mod:`edge_ad.data` reads, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_ad.data.dataset import Dataset, Item, open_dataset
from edge_ad.errors import EdgeAdError
from edge_ad.frame import Frame
from edge_ad.sensors import AlwaysOpen, BrokenFrame, paced
from edge_ad.sensors.uri import Uri


def open_uri(uri: Uri) -> FolderCamera:
    """``folder:DIR[?layout=&class=&split=&defect=&loop=1&fps=]``. Raises EdgeAdError."""
    uri.only("layout", "class", "split", "defect", "loop", "fps")
    if not uri.path:
        raise EdgeAdError(f"{uri} names no folder", "folder:DIR")
    class_name = uri.text("class")
    dataset = open_dataset(uri.path, uri.text("layout") or "auto", class_name)
    items = dataset.select(split=uri.text("split"), defect=uri.text("defect"))
    if not items:
        there = sorted({f"split={item.split}&defect={item.defect}" for item in dataset.items})
        raise EdgeAdError(f"{uri}: no such samples among {len(dataset.items)}", f"one of: {', '.join(there)}")
    return FolderCamera(
        str(uri),
        dataset,
        items,
        named=class_name is not None,
        loop=uri.switch("loop"),
        fps=uri.number("fps", 0, 0, 1000),
    )


class FolderCamera(AlwaysOpen):
    """Frames of ``items`` in order. A file that cannot be read gives a BrokenFrame and the stream goes on.

    With ``loop`` the items come again and again, named ``NAME@2``, ``NAME@3``, ... from the second time on.
    """

    def __init__(
        self,
        uri: str,
        dataset: Dataset,
        items: tuple[Item, ...],
        *,
        named: bool = False,
        loop: bool = False,
        fps: float = 0,
    ) -> None:
        self._uri = uri
        self._dataset = dataset
        self._items = items
        self._named = named
        self._loop = loop
        self._fps = fps

    def __iter__(self) -> Iterator[Frame | BrokenFrame]:
        """Frames, and a BrokenFrame for each sample that cannot be read."""
        return paced(self._frames(), self._fps)

    def __len__(self) -> int:
        """Samples in one pass over the folder."""
        return len(self._items)

    def describe(self) -> str:
        """One line for people."""
        rate = f", {self._fps:g} frames a second" if self._fps else ""
        again = ", again and again" if self._loop else ""
        return f"{self._uri}: {len(self._items)} samples ({self._dataset.layout}){rate}{again}"

    def _frames(self) -> Iterator[Frame | BrokenFrame]:
        sequence, lap = 0, 1
        while True:
            for item in self._items:
                name = item.name if lap == 1 else f"{item.name}@{lap}"
                yield self._read(item, name, sequence)
                sequence += 1
            if not self._loop:
                return
            lap += 1

    def _read(self, item: Item, name: str, sequence: int) -> Frame | BrokenFrame:
        try:
            frame = item.frame()
        except EdgeAdError as e:
            return BrokenFrame(name, sequence, str(item.source), str(e))
        # The name of a flat folder of recordings says nothing about the part's class.
        guessed = not self._named and item.source.parent == self._dataset.root
        return replace(frame, name=name, sequence=sequence, class_name=None if guessed else frame.class_name)
