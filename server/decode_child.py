"""The process that decodes: it forks for every video, so that a video meets limits of its own and ends alone.

It is started once, with what decoding needs imported. A job comes over the socket on standard input with three
descriptors: the video's file, the socket to answer to, and a pipe that is closed where nobody waits any more. What a
video does to its process reaches nobody else: it has no other descriptors, writes no files, and the system ends it when
its memory or its time is up.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange

from storm_edge.runtime.answer.pipeline import DEFAULT_FRAMES
from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.machine.memory import memory_limit
from storm_edge.runtime.video import FrameBatch, read_frames
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.reading import without_repeats
from storm_edge.server.decode_job import DONE, FRAMES, MESSAGE, PICTURE, REFUSED, UNREADABLE, DecodeJob

Send = Callable[[bytes, bytes], None]


def main() -> None:
    """Take jobs until the other side closes the socket."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's
    with socket.socket(fileno=0) as jobs:
        while True:
            message, descriptors, _, _ = socket.recv_fds(jobs, MESSAGE, 3)
            if not message:
                return
            if os.fork() == 0:
                with suppress(BaseException):
                    jobs.close()
                    _answer(DecodeJob.decoded(message), *descriptors)
                os._exit(0)
            for descriptor in descriptors:
                os.close(descriptor)


def _answer(job: DecodeJob, file: int, back: int, alive: int) -> None:
    fcntl.fcntl(alive, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(alive, fcntl.F_SETFL, os.O_ASYNC)  # SIGIO, which ends a process, when the other end is closed
    with memory_limit(job.memory), socket.socket(fileno=back) as connection:
        _limit(job)

        def send(kind: bytes, content: bytes) -> None:
            connection.sendall(kind + len(content).to_bytes(4, "little") + content)

        try:
            decode(job, file, send)
        except VideoError as e:
            send(UNREADABLE, str(e).encode())
        except UsageError as e:
            send(REFUSED, str(e).encode())
        except MemoryError:
            send(UNREADABLE, b"decoding the video takes more memory than this server allows: scale it down.")


def _limit(job: DecodeJob) -> None:
    memory = resource.getrlimit(resource.RLIMIT_DATA)[0]
    cores = os.cpu_count() or 1
    for limit, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, job.seconds * cores),
        (resource.RLIMIT_FSIZE, max(job.images, default=0)),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(limit, (most, most))
    signal.alarm(job.seconds)


def decode(job: DecodeJob, file: int, send: Send) -> None:
    """Send the frames that are to be looked at, each as a small picture too; raises VideoError, UsageError."""
    count = 0
    for batch in _batches(job, file):
        count += len(batch.frames)
        if count > job.limit:
            raise UsageError(f"more than {job.limit} frames are to be looked at: give fewer, or a lower fps.")
        send(FRAMES, batch.timestamps.astype("<f8").tobytes() + batch.frames.tobytes())
        for frame in batch.frames:
            send(PICTURE, jpeg(frame))
    send(DONE, b"")


def _batches(job: DecodeJob, file: int) -> Iterator[FrameBatch]:
    if job.images:
        yield from _images(job, file)
        return
    path, chosen = f"/proc/self/fd/{file}", job.sampling
    frames, fps = chosen.frames, chosen.fps
    with _called("the video", path):
        if fps is not None and chosen.most is not None:
            with VideoFile(Path(path)) as video:
                first, last = video.span()
            if (last - first) * fps >= chosen.most:
                frames, fps = chosen.most, None
        if frames is None and fps is None:
            most = min(chosen.most or DEFAULT_FRAMES, job.limit)
            yield from without_repeats(read_frames(path, size=job.size, frames=most, batch=job.batch))
        else:
            yield from read_frames(path, size=job.size, frames=frames, fps=fps, batch=job.batch)


def _images(job: DecodeJob, file: int) -> Iterator[FrameBatch]:
    """A list of images as frames: all of them, or as many as are to be looked at, evenly spread."""
    number, most = len(job.images), job.sampling.frames or job.sampling.most or len(job.images)
    places = [0, *accumulate(job.images)]
    for index in dict.fromkeys(np.linspace(0, number - 1, min(most, number)).round().astype(int).tolist()):
        descriptor = os.memfd_create("image")
        os.sendfile(descriptor, file, places[index], job.images[index])
        path = f"/proc/self/fd/{descriptor}"
        with _called(f"image {index + 1}", path):
            (batch,) = read_frames(path, size=job.size, frames=1)
        os.close(descriptor)
        yield FrameBatch(batch.frames, np.array([index / (job.sampling.rate or 1)]))


@contextmanager
def _called(name: str, path: str) -> Iterator[None]:
    """Let errors speak of `name`, not of a path."""
    try:
        yield
    except VideoError as e:
        raise VideoError(str(e).replace(path, name)) from e


def jpeg(frame: npt.NDArray[np.uint8]) -> bytes:
    """A frame [H, W, 3] as a JPEG file."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.height, codec.width = frame.shape[:2]
    codec.pix_fmt, codec.time_base, codec.color_range = "yuv420p", Fraction(1), ColorRange.JPEG
    codec.options = {"qmin": "3", "qmax": "3"}
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_color_range=ColorRange.JPEG)
    return b"".join(bytes(packet) for packet in [*codec.encode(picture), *codec.encode()])
