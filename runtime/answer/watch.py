"""A live video: vision runs once per frame, and whoever asks is answered about the last ones."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.answer import Answer
from storm_edge.runtime.answer.encoding import EncodedFrames
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.token_ring import TokenRing
from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.sessions.device import Stopwatch
from storm_edge.runtime.video.live import Following, LiveFrame, WatchedSource, live_source, picture_pixels
from storm_edge.runtime.video.resizing import Pixels

_CLOSING = 6.0  # seconds that closing waits for a thread; libav gives up a silent source sooner


class Asked(Protocol):
    """An encoded video."""

    def ask(self, question: str, options: SamplingOptions | None = None) -> Answer:
        """Ask one question by itself."""


@dataclass(frozen=True)
class Moment:
    """What an answer is about: the stream's times of its frames (T,), and the state of the watch.

    The newest frame came `age` seconds before the question. Of the frames that were due, the model looked at `seen`;
    `dropped` came while it was busy with others. `lost` says why no frame comes, "" where some do.
    `pictures` has one of each frame, uint8 [H, W, 3], where the watch keeps them.
    """

    timestamps: npt.NDArray[np.float64]
    age: float
    seen: int
    dropped: int
    lost: str
    ended: bool
    pictures: tuple[Pixels, ...] = ()


def watch_source(
    source: WatchedSource,
    size: int,
    encoders: Encoders,
    window: int,
    open_clip: Callable[[EncodedFrames], Asked],
    *,
    fps: float,
    follow: bool,
    pictures: bool,
) -> Watch:
    """Watch a source, whose frames become `size` pixels a side; see `Pipeline.watch`."""
    live, pixels = live_source(source, size, follow), picture_pixels(window) if pictures else 0
    return Watch(Following(live, size, fps, pixels), encoders, window, open_clip)


class Watch:
    """A live video; `Pipeline.watch` makes one. A context manager.

    One thread reads the source, another runs vision on the newest frame: where frames come faster, those in between are
    dropped. `ask` computes in its caller's thread and takes one caller at a time, as the pipeline does.
    """

    def __init__(
        self, following: Following, encoders: Encoders, window: int, open_clip: Callable[[EncodedFrames], Asked]
    ) -> None:
        self._following, self._encoders, self._open = following, encoders, open_clip
        self._ring = TokenRing(encoders.vision_session.device, window)
        self._changed = threading.Condition()  # holds all that follows
        self._newest: tuple[LiveFrame, float] | None = None  # not looked at yet, and when it came
        self._pictures: deque[Pixels] = deque(maxlen=window)
        self._came = 0.0  # the newest frame that was looked at
        self._dropped = 0
        self._read = self._ended = False
        self._failed: BaseException | None = None
        self._clip: tuple[int, Asked] | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name, daemon=True)
            for name, work in (("storm-watch", self._reading), ("storm-look", self._looking))
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, question: str, options: SamplingOptions | None = None) -> tuple[Answer, Moment]:
        """Ask about the last frames, as `Pipeline.open` would be asked about them; and what they are.

        Raises VideoError where no frame has come yet, UsageError, and what ended the watch.
        """
        clip, moment = self.clip()
        return clip.ask(question, options), moment

    def clip(self) -> tuple[Asked, Moment]:
        """The last frames as an encoded video, and what they are; raises what `ask` raises."""
        with self._changed:
            self._raise_failure()
            if not len(self._ring):
                raise VideoError(f"{self._following.lost}: wait for one, or check the source.")
            tokens, begun = self._encoders.tokens(len(self._ring)), time.perf_counter()
            moment = Moment(
                self._ring.copy(tokens),
                time.monotonic() - self._came,
                self._ring.added,
                self._dropped,
                self._following.lost,
                self._ended,
                tuple(self._pictures),
            )
        if self._clip is None or self._clip[0] != moment.seen:
            idle = Stopwatch(self._encoders.vision_session.device)
            frames = EncodedFrames(tokens, moment.timestamps, 0, time.perf_counter() - begun, idle)
            self._clip = moment.seen, self._open(frames)
        return self._clip[1], moment

    def wait(self, frames: int = 1, timeout: float | None = None) -> bool:
        """Wait until so many frames were looked at since the beginning; False where they were not in so many seconds,
        or will never be. Raises what ended the watch.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ring.added >= frames or self._ended, timeout)
            self._raise_failure()
            return self._ring.added >= frames

    @property
    def counts(self) -> tuple[int, int]:
        """Frames that were looked at, and those dropped."""
        with self._changed:
            return self._ring.added, self._dropped

    @property
    def lost(self) -> str:
        """Why no frame comes now; "" where some do."""
        return self._following.lost

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._ended

    def close(self) -> None:
        """End both threads; what was answered stays valid."""
        self._following.stopped.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_CLOSING)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reading(self) -> None:
        for shot in self._following.shots():
            with self._changed:
                self._dropped += self._newest is not None
                self._newest = shot, time.monotonic()
                self._changed.notify_all()

    def _looking(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._read or self._following.stopped.is_set())
                if self._newest is None or self._following.stopped.is_set():
                    return
                (shot, came), self._newest = self._newest, None
            tokens = self._encoders.vision(shot.frame[None])  # (1, N, D)
            with self._changed:
                self._ring.add(tokens, shot.time)
                if shot.picture is not None:
                    self._pictures.append(shot.picture)
                self._came = came
                self._changed.notify_all()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run a thread's work; whoever asks next hears of its failure."""
        try:
            work()
        except BaseException as error:
            with self._changed:
                self._failed = self._failed or error
            self._following.stopped.set()
        with self._changed:
            self._read = True
            self._ended = self._ended or work == self._looking or self._failed is not None
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed
