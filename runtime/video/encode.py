"""Writing frames as a video file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.stream import VideoStream

from storm_edge.runtime.errors import UsageError

# What players can show; x264's lossless-capable RGB form has a format of its own.
_PIXEL_FORMATS = {"libx264rgb": "rgb24"}


def encode_video(
    path: str | os.PathLike[str],
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    fps: float = 8,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> None:
    """Writes an MP4 of `frames` (uint8 [H, W, 3] RGB, all of one size), `fps` a second; `options` are the codec's own.

    The file appears under its name only when it is complete, and replaces one that is there.
    Raises UsageError if there are no frames, if they do not fit together or the codec, or if `path` cannot be written.
    """
    if not 0 < fps <= 1000:
        raise UsageError(f"fps is {fps}: give frames per second, above 0 and up to 1000.")
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(unfinished, frames, Fraction(fps).limit_denominator(100_000), codec, options or {})
        unfinished.replace(path)
    except (FFmpegError, OSError) as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; check the folder, and that {codec} can do it."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write(
    path: Path, frames: Iterable[npt.NDArray[np.uint8]], rate: Fraction, codec: str, options: dict[str, str]
) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        if codec not in container.supported_codecs & av.codecs_available or av.Codec(codec, "w").type != "video":
            raise UsageError(f"{codec} writes no MP4 video here: leave the codec out for H.264.")
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
        shape: tuple[int, ...] | None = None
        for index, frame in enumerate(frames):
            if shape is None:
                shape = _checked(frame, even=codec not in _PIXEL_FORMATS)
                stream.height, stream.width = shape[:2]
                stream.pix_fmt = _PIXEL_FORMATS.get(codec, "yuv420p")
            if frame.dtype != np.uint8 or frame.shape != shape:
                raise UsageError(
                    f"frame {index} is {frame.dtype} {list(frame.shape)}: the first is uint8 {list(shape)}."
                )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        if shape is None:
            raise UsageError("there are no frames to write: give one at least.")
        container.mux(stream.encode())


def _checked(frame: npt.NDArray[np.uint8], *, even: bool) -> tuple[int, ...]:
    if frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise UsageError(f"the frames have shape {list(frame.shape)}: give uint8 [height, width, 3].")
    if even and (frame.shape[0] % 2 or frame.shape[1] % 2):
        raise UsageError(
            f"the frames are {frame.shape[1]} x {frame.shape[0]}: video needs even sides; cut or pad them."
        )
    return frame.shape
