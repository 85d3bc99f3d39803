"""A bounded queue between two stages that can be closed, and that can keep the newest instead of waiting."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """Nothing more will come (or may be put)."""


class Channel(Generic[T]):
    """First in, first out, at most ``capacity`` items.

    newest_wins : a full channel forgets its oldest item instead of letting ``put`` wait; ``dropped`` counts them.
    """

    def __init__(self, capacity: int, newest_wins: bool = False) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._newest_wins = newest_wins
        self._closed = False
        self._changed = threading.Condition()
        self.dropped = 0
        self.deepest = 0

    def put(self, item: T) -> None:
        """Wait for room (or make it) and add ``item``; raises Closed when the channel is closed."""
        with self._changed:
            while not self._closed and not self._newest_wins and len(self._items) >= self._capacity:
                self._changed.wait()
            if self._closed:
                raise Closed
            while len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self.deepest = max(self.deepest, len(self._items))
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> T:
        """The oldest item; raises Closed when none is left and none will come, TimeoutError after ``timeout_s``."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or self._closed, timeout_s):
                raise TimeoutError
            if not self._items:
                raise Closed
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """No more puts; what is inside can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Close, and forget what is inside."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
