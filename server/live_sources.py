"""Which live videos a client may name: what the owner listed, http(s) on hosts that are allowed, files under media
roots, and frames that the client itself sends.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from av import VideoFrame

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.live import LiveSource, live_source
from storm_edge.runtime.video.live.local import PlayedFile
from storm_edge.runtime.video.live.stream import shots_of
from storm_edge.runtime.video.resizing import Pixels
from storm_edge.runtime.video.sampling import Shot
from storm_edge.server.decode_job import DecodeJob, Sampling
from storm_edge.server.decoder import Decoder
from storm_edge.server.errors import RequestError
from storm_edge.server.fetching import answered, check_url
from storm_edge.server.files import FileStore, Scratch
from storm_edge.server.settings import MIB, Settings
from storm_edge.server.sources import Sources

PUSHED = "frames"  # the source that clients send frames to
LARGEST = 4 * MIB  # bytes of such a frame
_PATIENCE = 5.0  # seconds in which a host sends nothing
_DECODING = 5  # seconds for one frame


class LiveSources:
    """Opens what requests name."""

    def __init__(self, settings: Settings, sources: Sources, decoder: Decoder, files: FileStore) -> None:
        self._settings, self._sources, self._decoder, self._files = settings, sources, decoder, files

    def open(self, name: str, size: int) -> LiveSource:
        """The source of a name, for frames of `size`; raises RequestError, VideoError."""
        if name in self._settings.live_sources:
            return live_source(name, size)
        if name == PUSHED:
            return PushedFrames(size, self._decoder, self._settings.decode_memory)
        scheme = name[:8].partition(":")[0].lower()
        if scheme in ("http", "https"):
            check_url(name, self._settings.url_hosts, "source")
            return HttpStream(name, self._settings.url_hosts)
        if scheme == "file":
            return RootFile(self._sources.of_root(name, "source"))
        raise RequestError(
            400,
            f"give a source that the owner allows (--allow-source), {PUSHED!r}, a file:// URL under a media root, or an"
            " http(s) URL of an allowed host.",
            "source_not_allowed",
            "source",
        )

    def scratch(self) -> Scratch:
        """A file without a name, for a frame on its way to the decoder."""
        return Scratch(self._files)


@dataclass(frozen=True)
class HttpStream:
    """A stream over http(s) from an allowed host; libav gets its bytes and opens nothing."""

    url: str
    hosts: Sequence[str]
    returns: bool = field(default=True, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        try:
            with answered(self.url, self.hosts, "source") as (answer, connection):
                connection.settimeout(_PATIENCE)
                yield from shots_of(_Answer(answer, stopped), str(self), stopped)
        except (OSError, HTTPException, ValueError, RequestError) as e:
            raise VideoError(f"{self} cannot be reached, or broke off: check the address.") from e

    def __str__(self) -> str:
        return "the URL"


@dataclass(frozen=True)
class _Answer:
    answer: HTTPResponse
    stopped: threading.Event

    def read(self, size: int) -> bytes:
        try:
            return b"" if self.stopped.is_set() else self.answer.read1(size)
        except (TimeoutError, HTTPException) as e:
            raise OSError("nothing came") from e


@dataclass(frozen=True)
class RootFile:
    """A file under a media root, played in real time."""

    file: IO[bytes]
    returns: bool = field(default=False, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        with self.file as file:
            # The file that was checked, whatever its name may lead to by now.
            yield from PlayedFile(Path(f"/proc/self/fd/{file.fileno()}")).shots(stopped)

    def __str__(self) -> str:
        return "the file"


class PushedFrames:
    """Frames that a client sends, decoded in the decoder's process; one that comes before another was taken goes."""

    returns = False

    def __init__(self, size: int, decoder: Decoder, memory: int) -> None:
        self._size, self._decoder, self._memory = size, decoder, memory
        self._frames: queue.Queue[Pixels] = queue.Queue(maxsize=1)

    def push(self, file: IO[bytes], count: int) -> None:
        """An image of `count` bytes; raises VideoError, UsageError."""
        job = DecodeJob(
            size=self._size,
            batch=1,
            limit=1,
            seconds=_DECODING,
            memory=self._memory,
            sampling=Sampling(),
            images=(count,),
        )
        with closing(self._decoder.frames(job, file.fileno(), [])) as batches:
            for batch in batches:
                with suppress(queue.Empty):
                    self._frames.get_nowait()
                with suppress(queue.Full):  # another client's came just now
                    self._frames.put_nowait(batch.frames[0].copy())

    def shots(self, stopped: threading.Event) -> Iterator[Shot[Pixels]]:
        """See LiveSource."""
        begun = time.monotonic()
        while not stopped.is_set():
            with suppress(queue.Empty):
                frame = self._frames.get(timeout=0.1)
                yield Shot(time.monotonic() - begun, frame)

    def __str__(self) -> str:
        return "the client"
