"""Decoding beside what else computes: a thread that stays a little ahead."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def ahead(source: Iterator[T], most: int = 2) -> Generator[T]:
    """The items of `source`, which are computed in a thread, at most `most` of them that were not asked for yet.

    Raises what `source` raises, where its next item would have come. Close it, or read it to its end: then the thread
    is gone, and `source` is closed.
    """
    room, stopped = threading.Semaphore(most), threading.Event()
    items: SimpleQueue[T | None] = SimpleQueue()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                room.acquire()
                item = None if stopped.is_set() else next(source, None)
                if item is None:
                    return
                items.put(item)
        except BaseException as error:
            failed.append(error)
        finally:
            if isinstance(source, Generator):
                source.close()
            items.put(None)

    thread = threading.Thread(target=work, name="storm-decode", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            room.release()
            yield item
    finally:
        stopped.set()
        room.release()
        thread.join()
    if failed:
        raise failed[0]
