"""Live videos that are watched for clients: a bounded number of them, each known by its id."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from storm_edge.runtime.answer.pipeline import Video
from storm_edge.runtime.answer.watch import Watch
from storm_edge.runtime.video.live import LiveSource
from storm_edge.server.engine import Engine
from storm_edge.server.errors import RequestError
from storm_edge.server.schema import StreamRequest
from storm_edge.server.settings import Settings
from storm_edge.server.video_cache import EncodedVideo

if TYPE_CHECKING:
    from storm_edge.server.live_sources import LiveSources

log = logging.getLogger(__name__)

STREAM = "stream:"  # before the id, where a video is named


@dataclass(frozen=True)
class LiveStream:
    """One of them."""

    asked: StreamRequest
    source: LiveSource
    watch: Watch
    id: str = field(default_factory=lambda: f"live-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def shown(self) -> dict[str, Any]:
        """What a client is told; nothing of why no frame comes, which would say what is where."""
        seen, dropped = self.watch.counts
        return {
            "id": self.id,
            "object": "stream",
            "created_at": self.created,
            "fps": self.asked.fps,
            "window": self.asked.window,
            "seen": seen,
            "dropped": dropped,
            "lost": bool(self.watch.lost),
            "ended": self.watch.ended,
        }


@dataclass(frozen=True)
class LiveClip:
    """The last frames of a stream, at the moment at which they are encoded: a job's source."""

    stream: LiveStream

    @property
    def digest(self) -> str:
        """What the questions about a stream take turns by."""
        return f"{STREAM}{self.stream.id}"

    def encoded(self) -> EncodedVideo:
        """Run the temporal encoder over them; raises VideoError, EngineError."""
        video, moment = self.stream.watch.clip()
        assert isinstance(video, Video)
        return EncodedVideo(video, (), moment)

    def close(self) -> None:
        """The stream goes on."""


class Streams:
    """For any number of threads."""

    def __init__(self, engine: Engine, sources: LiveSources, settings: Settings) -> None:
        self._engine, self.sources, self._settings = engine, sources, settings
        self._lock = threading.Lock()
        self._streams: dict[str, LiveStream] = {}
        self._begun = 0  # places of streams that are being made
        self._closed = False

    def create(self, asked: StreamRequest) -> LiveStream:
        """Begin to watch; raises RequestError, UsageError, VideoError."""
        if not self._engine.shared:
            raise RequestError(501, "this engine answers or encodes, and cannot watch meanwhile.", "not_supported")
        if asked.window > self._settings.max_frames:
            words = f"a window has no more than {self._settings.max_frames} frames (--max-frames)."
            raise RequestError(400, words, "invalid_value", "window")
        pipeline = self._engine.encoder
        with self._place():
            source = self.sources.open(asked.source, pipeline.bundle.config.vision.image_size)
            watch = pipeline.watch(source, fps=asked.fps, window=asked.window, sample=asked.sample)
            stream = LiveStream(asked, source, watch)
            with self._lock:
                closed = self._closed
                if not closed:
                    self._streams[stream.id] = stream
        if closed:
            watch.close()
            raise _ending()
        log.info("%s is watched: %s", stream.id, source)
        return stream

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place for one more, which is made without the lock: its host may have to be looked up."""
        with self._lock:
            if self._closed:
                raise _ending()
            if (watched := len(self._streams) + self._begun) >= self._settings.streams:
                raise RequestError(
                    429,
                    f"{watched} streams are watched, and no more may be (--streams): delete one.",
                    "too_many_streams",
                )
            self._begun += 1
        try:
            yield
        finally:
            with self._lock:
                self._begun -= 1

    def get(self, stream_id: str) -> LiveStream:
        """A stream; raises RequestError."""
        with self._lock:
            if stream_id not in self._streams:
                raise RequestError(404, "no stream has this id.", "stream_not_found")
            return self._streams[stream_id]

    def listed(self) -> list[LiveStream]:
        """All of them."""
        with self._lock:
            return list(self._streams.values())

    def clip(self, stream_id: str, param: str) -> LiveClip:
        """A stream's last frames; raises RequestError, which names the field `param`."""
        try:
            return LiveClip(self.get(stream_id))
        except RequestError as e:
            raise RequestError(404, e.message, e.code, param) from e

    def delete(self, stream_id: str) -> None:
        """End a stream; raises RequestError."""
        stream = self.get(stream_id)
        with self._lock:
            self._streams.pop(stream_id, None)
        stream.watch.close()

    def close(self) -> None:
        """End all of them; no more are taken."""
        with self._lock:
            self._closed, streams = True, list(self._streams.values())
            self._streams.clear()
        if streams:
            with ThreadPoolExecutor(len(streams)) as pool:
                list(pool.map(lambda stream: stream.watch.close(), streams))

    def __len__(self) -> int:
        return len(self._streams)


def _ending() -> RequestError:
    return RequestError(503, "this server is about to end.", "shutting_down", headers={"Retry-After": "5"})
