"""Frames of videos, decoded before the model asks for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from storm_edge.batch.fetch import local_copy
from storm_edge.batch.library import Item
from storm_edge.runtime.answer.pipeline import DEFAULT_FRAMES
from storm_edge.runtime.video import FrameBatch, read_frames
from storm_edge.runtime.video.reading import without_repeats

AHEAD = 64 << 20  # bytes of frames that wait, of one video


@dataclass(frozen=True)
class Looking:
    """Which frames are looked at, as `storm run` chooses them, at the model's `size`, `batch` at a time."""

    size: int
    batch: int
    frames: int | None = None
    fps: float | None = None
    snap: float | None = None

    def read(self, location: str) -> Iterator[FrameBatch]:
        """The frames of a video; raises VideoError, UsageError."""
        by_default = self.frames is None and self.fps is None
        frames = DEFAULT_FRAMES if by_default else self.frames
        with local_copy(location) as path:
            batches = read_frames(path, size=self.size, frames=frames, fps=self.fps, batch=self.batch, snap=self.snap)
            yield from without_repeats(batches) if by_default else batches


class Clip:
    """A video that is being decoded: iterate for its batches; `seconds` is what decoding took so far."""

    def __init__(self, item: Item, looking: Looking):
        self.item, self.seconds = item, 0.0
        room = max(2, AHEAD // (3 * looking.size**2 * looking.batch))
        self._batches: queue.Queue[FrameBatch | Exception | None] = queue.Queue(room)
        self._unwanted = threading.Event()

    def __iter__(self) -> Iterator[FrameBatch]:
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def drop(self) -> None:
        """Nobody wants the rest."""
        self._unwanted.set()

    def fill(self, looking: Looking) -> None:
        """Decode the video, as far as it is wanted."""
        batches = looking.read(self.item.location)
        end: Exception | None = None
        try:
            start = time.perf_counter()
            for batch in batches:
                self.seconds += time.perf_counter() - start
                if not self._put(batch):
                    return
                start = time.perf_counter()
        except Exception as e:  # raised again where the frames are asked for
            end = e
        self._put(end)

    def _put(self, batch: FrameBatch | Exception | None) -> bool:
        while not self._unwanted.is_set():
            try:
                self._batches.put(batch, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


class Decoder:
    """Decodes one video after the other in a thread."""

    def __init__(self, looking: Looking):
        self._looking = looking
        self._waiting: queue.Queue[Clip] = queue.Queue()
        threading.Thread(target=self._work, name="storm-batch-decoder", daemon=True).start()

    def begin(self, item: Item) -> Clip:
        """A clip whose frames come when those before it are decoded."""
        clip = Clip(item, self._looking)
        self._waiting.put(clip)
        return clip

    def _work(self) -> None:
        while True:
            self._waiting.get().fill(self._looking)
