"""Videos to frames in a process of their own, so that a file from anybody can neither crash nor fill the server."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial

import numpy as np

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video import FrameBatch
from storm_edge.server.decode_job import DONE, FRAMES, HEADER, PICTURE, REFUSED, UNREADABLE, DecodeJob

_CHILD = "import sys; sys.path[:1] = []; from storm_edge.server.decode_child import main; main()"
_LARGEST = 1 << 20  # bytes of a picture or an error


class Decoder:
    """The decoding process. It is started when it is first needed, and again should it be gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs: socket.socket | None = None

    def start(self) -> None:
        """Start the process, so that the first video need not wait for it."""
        with self._lock:
            self._connected()

    def frames(
        self,
        job: DecodeJob,
        file: int,
        pictures: list[bytes],
        on_cancel: Callable[[Callable[[], None]], None] = lambda stop: None,
    ) -> Generator[FrameBatch, None, None]:
        """The frames of a video in the open `file`; small JPEG files of them are added to `pictures`.

        `on_cancel` is given what ends it early, from any thread; so does closing the iterator.
        Raises VideoError where the video cannot be read or takes more than the job's seconds or bytes, UsageError for
        frames over its limit.
        """
        here, there = socket.socketpair()
        ended, alive = os.pipe2(os.O_CLOEXEC)  # closing the second ends the child
        try:
            with there:
                self._send(job.encoded(), file, there.fileno(), ended)
            on_cancel(partial(_shut, here))
            yield from _frames(here, job, pictures)
        finally:
            os.close(alive)
            os.close(ended)
            here.close()

    def close(self) -> None:
        """End the process and what it decodes."""
        with self._lock:
            self._end()

    def _send(self, message: bytes, *descriptors: int) -> None:
        with self._lock:
            try:
                socket.send_fds(self._connected(), [message], list(descriptors))
            except OSError:  # it is gone: once more with a new one
                self._end()
                socket.send_fds(self._connected(), [message], list(descriptors))

    def _connected(self) -> socket.socket:
        if self._jobs is None:
            self._jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD], stdin=theirs.fileno(), start_new_session=True
                )
        return self._jobs

    def _end(self) -> None:
        if self._jobs is not None and self._process is not None:
            self._jobs.close()
            self._process.kill()
            self._process.wait()
            self._jobs = self._process = None


def _frames(connection: socket.socket, job: DecodeJob, pictures: list[bytes]) -> Iterator[FrameBatch]:
    """What the child sends, which is trusted no more than the video."""
    deadline = time.monotonic() + job.seconds + 1
    shape = (job.size, job.size, 3)
    each = math.prod(shape) + 8
    left = job.limit
    while True:
        kind, content = _receive(connection, deadline, job.batch * each + _LARGEST, job)
        count = len(content) // each
        if kind == FRAMES and 0 < count <= left and len(content) == count * each:
            left -= count
            pixels = np.frombuffer(content, np.uint8, offset=8 * count).reshape(count, *shape)
            yield FrameBatch(pixels, np.frombuffer(content, "<f8", count))
        elif kind == PICTURE and len(pictures) < job.limit:
            pictures.append(content)
        elif kind == UNREADABLE:
            raise VideoError(content.decode(errors="replace"))
        elif kind == REFUSED:
            raise UsageError(content.decode(errors="replace"))
        elif kind == DONE:
            return
        else:
            raise _stopped(job)


def _receive(connection: socket.socket, deadline: float, most: int, job: DecodeJob) -> tuple[bytes, bytes]:
    """The next message; raises VideoError where none comes in time."""
    header = _exactly(connection, HEADER, deadline, job)
    length = int.from_bytes(header[1:], "little")
    if length > most:
        raise _stopped(job)
    return header[:1], _exactly(connection, length, deadline, job)


def _exactly(connection: socket.socket, count: int, deadline: float, job: DecodeJob) -> bytes:
    content = bytearray(count)
    view, at = memoryview(content), 0
    while at < count:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        got = 0
        with suppress(OSError):
            got = connection.recv_into(view[at:])
        if not got:
            raise _stopped(job)
        at += got
    return bytes(content)


def _stopped(job: DecodeJob) -> VideoError:
    return VideoError(
        f"decoding the video was stopped: it takes over {job.seconds} seconds or {job.memory >> 20} MiB, or its data"
        " crash the decoder; give it shorter, smaller, or encoded anew."
    )


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
