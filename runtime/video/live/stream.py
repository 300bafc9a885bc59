"""Streams that libav reads as they come: a URL, a capture device, a pipe.

A source can open nothing but itself: each kind has its own list of protocols, and no list of formats has playlists.
"""

from __future__ import annotations

import os
import select
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import av
from av import VideoFrame
from av.container import InputContainer
from av.error import FFmpegError

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.opening import MAX_IMAGE_PIXELS, picture_stream
from storm_edge.runtime.video.sampling import Shot

# What libav may open for a URL of each scheme. RTSP carries its pictures in the connection itself.
PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "udp": "udp",
}
_FORMATS = "mpegts,matroska,flv,mjpeg,mpjpeg,h264,hevc,m4v,mpeg,mpegvideo,ogg,nut,ivf,obu"
_PATIENCE = 5.0  # seconds for opening, and between two packets
_POLL = 0.05  # seconds between two looks at the end of a file
_PACKET, _JOINED = 188, 4 << 20  # bytes of a packet of MPEG-TS (ISO 13818-1), and of the end of a file of them
# Little is looked at before the first frame is shown: bytes, and microseconds.
_OPENING = {"probesize": "500000", "analyzeduration": "1000000", "fpsprobesize": "0"}


@dataclass(frozen=True)
class LiveStream:
    """A URL or a capture device; `what` is opened, with libav's options and format."""

    what: str
    options: dict[str, str]
    format: str | None = None
    returns: bool = field(default=True, init=False)

    @classmethod
    def of_url(cls, url: str) -> LiveStream:
        """Raises VideoError for a scheme that is not watched."""
        scheme = urlsplit(url).scheme.lower()
        if scheme not in PROTOCOLS:
            known = ", ".join(f"{name}://" for name in PROTOCOLS)
            raise VideoError(
                f"{scheme}:// is not watched here: give {known}, a device, a folder, a file or - (a pipe)."
            )
        options = {"protocol_whitelist": PROTOCOLS[scheme], "format_whitelist": _FORMATS}
        if scheme == "rtsp":
            options |= {"format_whitelist": f"{_FORMATS},rtsp", "rtsp_transport": "tcp"}
        if "tls" in PROTOCOLS[scheme]:  # libav checks no certificate by itself
            trusted = ssl.get_default_verify_paths()
            options |= {"tls_verify": "1", "ca_file": trusted.cafile or trusted.openssl_cafile}
        return cls(url, options)

    @classmethod
    def of_device(cls, path: Path) -> LiveStream:
        """A Video4Linux device."""
        return cls(str(path), {"protocol_whitelist": "none", "format_whitelist": "v4l2"}, "v4l2")

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        return _shots(self.what, str(self), stopped, self.options, self.format)

    def __str__(self) -> str:
        """Without the password that a URL may have."""
        parts = urlsplit(self.what)
        return self.what if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@dataclass(frozen=True)
class LivePipe:
    """A pipe that somebody writes a stream to, MPEG-TS for instance; what is over is over.

    `owner` is kept, so that it does not close the descriptor.
    """

    descriptor: int
    owner: object = None
    returns: bool = field(default=False, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        return shots_of(_Pipe(self.descriptor, stopped), str(self), stopped)

    def __str__(self) -> str:
        return "the pipe"


@dataclass(frozen=True)
class GrowingFile:
    """A file that is still being written, from its beginning on as fast as it can be read, and then as it grows.

    Of MPEG-TS, which can be joined anywhere, only the end of what is there. A file that is replaced or cut is opened
    again.
    """

    path: Path
    returns: bool = field(default=True, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        try:
            with self.path.open("rb", buffering=0) as file:
                yield from shots_of(_Growing(self.path, file, stopped), str(self), stopped)
        except OSError as error:
            raise VideoError(f"cannot read {self.path} ({error.strerror}): check the file.") from error

    def __str__(self) -> str:
        return str(self.path)


class _Growing:
    """Reads a file, and waits at its end for more."""

    def __init__(self, path: Path, file: IO[bytes], stopped: threading.Event) -> None:
        self._path, self._file, self._stopped = path, file, stopped
        begins = file.read(2 * _PACKET + 1)
        is_transport_stream = begins[::_PACKET] == b"G" * 3
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - _JOINED, 0) if is_transport_stream else 0)

    def read(self, size: int) -> bytes:
        while not self._stopped.is_set():
            data = self._file.read(size)
            if data or self._replaced():
                return data
            self._stopped.wait(_POLL)
        return b""

    def _replaced(self) -> bool:
        there, ours = self._path.stat(), os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size < self._file.tell()


class _Pipe:
    """Reads what is there, so that the end of the watch is not waited for."""

    def __init__(self, descriptor: int, stopped: threading.Event) -> None:
        self._descriptor, self._stopped = descriptor, stopped

    def read(self, size: int) -> bytes:
        while not self._stopped.is_set():
            if select.select([self._descriptor], [], [], 0.1)[0]:
                return os.read(self._descriptor, size)
        return b""


class Reader(Protocol):
    """Bytes of a stream as they come; none at its end."""

    def read(self, size: int) -> bytes:
        """At most so many; raises OSError."""


def shots_of(reader: Reader, name: str, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
    """The frames of a stream that somebody else reads; nothing but that is opened. Raises VideoError."""
    return _shots(reader, name, stopped, {"protocol_whitelist": "none", "format_whitelist": _FORMATS})


def _shots(
    what: Any, name: str, stopped: threading.Event, options: dict[str, str], format: str | None = None
) -> Iterator[Shot[VideoFrame]]:
    with _opened(what, name, options, format) as container:
        stream = picture_stream(container, name)
        stream.thread_type = "SLICE"  # threads that decode frames of their own would keep each back for a while
        begun = time.monotonic()
        packets = container.demux(stream)
        while not stopped.is_set():
            try:
                packet = next(packets, None)
            except (FFmpegError, OSError) as error:
                raise VideoError(f"{name} broke off ({error.strerror}): check it and the network.") from error
            if packet is None:
                return
            frames: list[VideoFrame] = []
            with suppress(FFmpegError, MemoryError):  # damaged on its way
                frames = stream.decode(packet)
            for frame in frames:
                if not frame.is_corrupt:
                    yield Shot(time.monotonic() - begun if frame.time is None else frame.time, frame)


def _opened(what: Any, name: str, options: dict[str, str], format: str | None) -> InputContainer:
    try:
        container: InputContainer = av.open(
            what,
            "r",
            format=format,
            metadata_errors="replace",
            options={"max_pixels": str(MAX_IMAGE_PIXELS)},
            container_options=_OPENING | options,
            timeout=_PATIENCE,
        )
    except (FFmpegError, OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or "too little memory"
        check = (
            "the address, and that it sends video"
            if isinstance(what, str)
            else "that it sends MPEG-TS, Matroska or FLV"
        )
        raise VideoError(f"{name} cannot be opened ({why}): check {check}.") from error
    return container
