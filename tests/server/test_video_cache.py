from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storm_edge.server.decode_job import Sampling
from storm_edge.server.video_cache import EncodedVideo, VideoCache, VideoKey


@dataclass
class Fake:
    """What the cache reads of a video."""

    rows: Any = field(default_factory=lambda: np.zeros((10, 25), np.float32))
    timestamps: Any = field(default_factory=lambda: np.zeros(0))


def encoded() -> EncodedVideo:
    return EncodedVideo(Fake(), (b"x" * 24,))  # type: ignore[arg-type]


def key(digest: str, **sampling: Any) -> VideoKey:
    return VideoKey(digest, Sampling(**sampling))


def test_the_least_recently_used_goes_first_and_the_bytes_hold() -> None:
    cache = VideoCache(3 * 1024)
    for digest in "abc":
        assert cache.put(key(digest), encoded()) == 0
    assert cache.get(key("a")) is not None
    assert cache.put(key("d"), encoded()) == 1
    assert [cache.get(key(digest)) is not None for digest in "abcd"] == [True, False, True, True]
    assert (cache.size, len(cache)) == (3 * 1024, 3)


def test_what_has_no_room_is_not_kept() -> None:
    cache = VideoCache(1000)
    cache.put(key("a"), encoded())
    assert (len(cache), cache.size) == (0, 0)


def test_the_same_video_looked_at_otherwise_is_another() -> None:
    cache = VideoCache(1 << 20)
    cache.put(key("a", frames=8), encoded())
    assert cache.get(key("a", frames=9)) is None
    assert cache.get(key("a", frames=8)) is not None


def test_a_video_that_is_there_is_kept_once() -> None:
    cache = VideoCache(1 << 20)
    first = encoded()
    cache.put(key("a"), first)
    cache.put(key("a"), encoded())
    assert cache.get(key("a")) is first
    assert cache.size == first.size == 1024
