"""Media made on the spot: moving patterns, so that every frame differs from every other."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from storm_edge.runtime.video import read_frames

Pixels = npt.NDArray[np.uint8]
TICK = Fraction(1, 3000)


def pattern(number: int, height: int = 48, width: int = 64) -> Pixels:
    """`number` frames uint8 [number, height, width, 3]; a flash every 77th invites an irregular keyframe."""
    frames = np.zeros((number, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[i % height] = 255
        frame[:, (i * 3) % width] = (i % 256, 200, 50)
        frame[10:20, 10:20] = (i * 7) % 256
        if i % 77 == 76:
            frame[:] = 255 - frame
    return frames


def write(
    path: Path,
    frames: Sequence[Pixels] | Pixels,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    container: str | None = None,
    rotation: float | None = None,
    mirror: dict[str, bool] | None = None,
    tick: Fraction | None = None,
) -> Path:
    """Encodes `frames`, shown at `ticks` of `tick`, 1/3000 s; by default 30 a second."""
    tick = tick or TICK
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = tick
        if rotation is not None:
            stream.set_display_rotation(rotation, **(mirror or {}))
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = (ticks[i] if ticks is not None else round(i / (30 * tick))), tick
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def rewrap(source: Path, path: Path, *, container: str | None = None, options: dict[str, str] | None = None) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return path


def sound(path: Path, codec: str) -> Path:
    """A tenth of a second of silence."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def read(source: Any, **arguments: Any) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """All batches of read_frames, joined."""
    batches = list(read_frames(source, **arguments))
    return np.concatenate([b.frames for b in batches]), np.concatenate([b.timestamps for b in batches])


def check_samples(path: Path, least: int = 1) -> tuple[Pixels, npt.NDArray[np.float64]]:
    """Every way of sampling gives the frames and timestamps that it would choose from all of them; returns those."""
    every, times = read(path, size=16)
    assert len(every) >= least
    assert (np.diff(times) >= 0).all()
    samples: list[dict[str, Any]] = [{"frames": 1}, {"frames": 3}, {"frames": 9}, {"fps": 1}, {"fps": 7.5}]
    for arguments in samples:
        frames, shown = read(path, size=16, **arguments)
        expected, expected_times = read(every, size=16, timestamps=times, **arguments)
        np.testing.assert_array_equal(shown, expected_times)
        np.testing.assert_array_equal(frames, expected)
    return every, times


class Media:
    """What the tests make and read videos with."""

    pattern = staticmethod(pattern)
    write = staticmethod(write)
    rewrap = staticmethod(rewrap)
    sound = staticmethod(sound)
    read = staticmethod(read)
    check_samples = staticmethod(check_samples)


@pytest.fixture(scope="session")
def media() -> type[Media]:
    return Media


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of H.264 with B-frames, a keyframe a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write(path, pattern(300), options={"g": "30", "bf": "3"})
