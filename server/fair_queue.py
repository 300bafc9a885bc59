"""A line in which keys take turns: one under which much is asked delays the others by one item at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by key: keys take turns, and of one key the first comes first. For any number of threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._closed = False

    def put(self, key: Hashable, item: T) -> None:
        """Add an item at the end of its key's line."""
        with self._changed:
            self._lines.setdefault(key, deque()).append(item)
            self._changed.notify()

    def get(self) -> T | None:
        """Wait for the next item; None once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closed)
            if self._closed:
                return None
            key, line = next(iter(self._lines.items()))
            item = line.popleft()
            del self._lines[key]
            if line:
                self._lines[key] = line  # behind all others
            return item

    def remove(self, key: Hashable, item: T) -> bool:
        """Take an item out of its line; returns whether it was still there."""
        with self._changed:
            line = self._lines.get(key)
            if line is None or item not in line:
                return False
            line.remove(item)
            if not line:
                del self._lines[key]
            return True

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        with self._changed:
            return sum(map(len, self._lines.values()))
