from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video import read_frames
from storm_edge.server.decode_job import DecodeJob, Sampling
from storm_edge.server.decoder import Decoder

MIB = 1 << 20


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    yield decoder
    decoder.close()


def job(sampling: Sampling | None = None, **more: Any) -> DecodeJob:
    given = {"size": 64, "batch": 3, "limit": 100, "seconds": 20, "memory": 512 * MIB} | more
    return DecodeJob(sampling=sampling or Sampling(), **given)


def decoded(decoder: Decoder, path: Path, wanted: DecodeJob) -> tuple[Any, Any, list[bytes]]:
    pictures: list[bytes] = []
    with path.open("rb") as file:
        batches = list(decoder.frames(wanted, file.fileno(), pictures))
    return np.concatenate([b.frames for b in batches]), np.concatenate([b.timestamps for b in batches]), pictures


@pytest.mark.parametrize("sampling", [{"frames": 5}, {"fps": 4.0}])
def test_frames_are_those_that_the_runtime_reads(decoder: Decoder, clips: list[Path], sampling: dict[str, Any]) -> None:
    frames, times, pictures = decoded(decoder, clips[0], job(Sampling(**sampling)))
    truth = list(read_frames(clips[0], size=64, **sampling))
    assert np.array_equal(frames, np.concatenate([batch.frames for batch in truth]))
    assert np.array_equal(times, np.concatenate([batch.timestamps for batch in truth]))
    assert len(pictures) == len(times)


def png(width: int, height: int) -> bytes:
    """A PNG that is small as a file and as large as it says in memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    pressed = zlib.compressobj(9)
    rows = b"".join(pressed.compress(bytes(1 + 3 * width)) for _ in range(height)) + pressed.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_that_unfolds_to_more_than_it_may_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(8000, 4000))
    with pytest.raises(VideoError):
        decoded(decoder, tmp_path / "bomb.png", job(memory=60 * MIB))
    frames, _, _ = decoded(decoder, tmp_path / "bomb.png", job(memory=1024 * MIB))
    assert frames.shape == (1, 64, 64, 3)


def test_a_video_that_takes_too_long_is_stopped(decoder: Decoder, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "piece.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for value in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((1080, 1920, 3), value * 9, np.uint8))))
        container.mux(stream.encode())
    (tmp_path / "long.h264").write_bytes((tmp_path / "piece.h264").read_bytes() * 4000)  # 21 minutes
    begin = time.monotonic()
    with pytest.raises(VideoError, match="was stopped: it takes over 1 seconds"):
        decoded(decoder, tmp_path / "long.h264", job(Sampling(frames=4), seconds=1))
    assert time.monotonic() - begin < 15


def test_more_frames_than_the_limit_are_refused(decoder: Decoder, clips: list[Path]) -> None:
    with pytest.raises(UsageError, match="more than 5 frames"):
        decoded(decoder, clips[0], job(Sampling(frames=6), limit=5))


def test_it_ends_when_nobody_waits(decoder: Decoder, clips: list[Path]) -> None:
    stops: list[Callable[[], None]] = []
    with clips[0].open("rb") as file:
        frames = decoder.frames(job(Sampling(frames=100)), file.fileno(), [], stops.append)
        next(frames)
        stops[0]()
        with pytest.raises(VideoError, match="was stopped"):
            for _ in frames:
                pass


def test_a_decoder_that_died_is_started_again(clips: list[Path]) -> None:
    decoder = Decoder()
    decoder.start()
    assert decoder._process is not None
    decoder._process.kill()
    decoder._process.wait()
    frames, _, _ = decoded(decoder, clips[0], job())
    assert len(frames) == 8
    decoder.close()


def test_what_a_child_sends_is_checked(monkeypatch: pytest.MonkeyPatch, clips: list[Path]) -> None:
    lies = [b"F" + struct.pack("<I", 1 << 31), b"F" + struct.pack("<I", 3) + b"abc", b"?" + struct.pack("<I", 0), b"F"]
    for lie in lies:
        decoder = Decoder()
        threads: list[threading.Thread] = []

        def send(message: bytes, file: int, back: int, ended: int, lie: bytes = lie) -> None:
            copy = os.dup(back)
            os.write(copy, lie)
            os.close(copy)

        monkeypatch.setattr(decoder, "_send", send)
        with clips[0].open("rb") as file, pytest.raises(VideoError, match="was stopped"):
            list(decoder.frames(job(), file.fileno(), []))
        assert threads == []
