"""Encoded videos of one engine, known by the hash of their bytes and by how they were looked at."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from storm_edge.runtime.answer.chunked import bytes_of
from storm_edge.runtime.answer.pipeline import Video
from storm_edge.runtime.answer.watch import Moment
from storm_edge.server.decode_job import Sampling


@dataclass(frozen=True)
class VideoKey:
    """SHA-256 of a video's bytes, and which of its frames are looked at."""

    digest: str
    sampling: Sampling


@dataclass(frozen=True)
class EncodedVideo:
    """A video as the language model takes it, and small pictures (JPEG) of the frames that were looked at.

    Of a live video, `moment` says what it is about.
    """

    video: Video
    pictures: tuple[bytes, ...]
    moment: Moment | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return bytes_of(self.video.rows) + self.video.timestamps.nbytes + sum(map(len, self.pictures))


class VideoCache:
    """At most `capacity` bytes of encoded videos; the least recently used goes first. For any number of threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._videos: OrderedDict[VideoKey, EncodedVideo] = OrderedDict()
        self.size = 0

    def get(self, key: VideoKey) -> EncodedVideo | None:
        """A video that is there."""
        with self._lock:
            if key in self._videos:
                self._videos.move_to_end(key)
            return self._videos.get(key)

    def put(self, key: VideoKey, video: EncodedVideo) -> int:
        """Keep a video, if it has room; returns how many had to go for it."""
        gone = 0
        with self._lock:
            if key in self._videos or video.size > self._capacity:
                return gone
            self._videos[key] = video
            self.size += video.size
            while self.size > self._capacity:
                _, oldest = self._videos.popitem(last=False)
                self.size -= oldest.size
                gone += 1
        return gone

    def __len__(self) -> int:
        return len(self._videos)
