"""Frames for the vision tower out of anything that shows pictures."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av import VideoFrame

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.folder import FrameFolder
from storm_edge.runtime.video.listing import FrameList, FrameStream, frame_times, from_array
from storm_edge.runtime.video.opening import check_file, unreadable
from storm_edge.runtime.video.resizing import Pixels, Resizer
from storm_edge.runtime.video.sampling import TOLERANCE, Payload, Shot, Source, paced, shown_at, spread

# Beyond these a request is a slip of the keyboard, not a wish.
MAX_FRAMES, MAX_SIZE, MAX_BATCH = 100_000, 8_192, 4_096
MIN_FPS, MAX_FPS = 1e-4, 1000

VideoSource = str | os.PathLike[str] | npt.NDArray[np.uint8] | Iterable[tuple[float, Pixels]]


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive frames uint8 [n, size, size, 3], RGB, and float64 [n], the seconds at which the source shows them."""

    frames: npt.NDArray[np.uint8]
    timestamps: npt.NDArray[np.float64]


def read_frames(
    source: VideoSource,
    *,
    size: int,
    frames: int | None = None,
    fps: float | None = None,
    batch: int = 8,
    timestamps: npt.ArrayLike | None = None,
    snap: float | None = None,
) -> Iterator[FrameBatch]:
    """The frames of a video at the model's size, `batch` at a time.

    `source` is the path of a local video, GIF or image; or of a folder of images, taken in natural order (9 before 10);
    or a uint8 array [T, H, W, 3]; or an iterable of (seconds, uint8 [H, W, 3]). The frames of an array and the images
    of a folder appear at `timestamps` [T], by default one a second from 0.
    `frames=N` takes what is shown at N times spread evenly from the first timestamp to the last; `fps=F` what is shown
    at first + i/F up to the last; neither takes every frame. Shown at t is the last frame that appeared by t + 0.5 ms.
    Frames repeat where more are asked for than the video has; their timestamps are always the source's own.
    `snap=S` takes the keyframe nearest to each of these times instead, if one is not more than S seconds away, which
    saves decoding up to it. Where a file has no index of keyframes (all but MP4, MOV, MKV and WebM), and for what is no
    video file, frames are those shown at the times.
    Resized by swscale, bicubic, without keeping the aspect ratio, so that of a file's pixels makes no difference;
    upright as the file's display matrix says; transparency is dropped.
    An image has at most 8192 x 8192 pixels in all, a video 8192 x 4320; more are refused before room is made for them.
    Memory does not grow with the length, except for an iterable with `frames=N`: its end is not known before it is
    reached, so all its frames are kept at the model's size.

    Raises UsageError, at once, for wrong arguments; VideoError if the video cannot be read, at once if it is missing.
    """
    size = whole_number("size", size, MAX_SIZE)
    batch = whole_number("batch", batch, MAX_BATCH)
    frames, fps = _number_or_rate(frames, fps)
    if snap is not None:
        if frames is None and fps is None:
            raise UsageError("snap moves the times of frames or fps: give one of them.")
        snap = _seconds(snap)
    resize = Resizer(size)
    if isinstance(source, str | os.PathLike):
        path = local_path(source)
        if os.path.isdir(path):
            return _batches(_chosen(FrameFolder(path, size, timestamps), frames, fps), resize, batch)
        if timestamps is None:
            return _of_file(path, resize, frames, fps, snap, batch)
    elif isinstance(source, np.ndarray):
        return _batches(_chosen(from_array(source, timestamps), frames, fps), resize, batch)
    elif timestamps is None:
        return _batches(_chosen(FrameStream(source, resize), frames, fps), resize, batch)
    raise UsageError("timestamps belong to an array or a folder of images: files and iterables have their own.")


def without_repeats(batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
    """Leave out frames that are shown again, so that an image is one frame and a short clip is as long as it is."""
    last = -np.inf
    for batch in batches:
        new = np.diff(batch.timestamps, prepend=last) > 0
        last = batch.timestamps[-1]
        if new.any():
            yield FrameBatch(batch.frames[new], batch.timestamps[new])


def chosen_frames(
    count: int, *, frames: int | None, fps: float | None, timestamps: npt.ArrayLike | None, repeats: bool
) -> Iterator[tuple[float, int]]:
    """When which of `count` frames appear that `read_frames` would take of an array; without `repeats` none twice.

    Raises UsageError, at once.
    """
    array = FrameList(frame_times(count, timestamps), range(count))
    chosen = chosen_shots(array, frames=frames, fps=fps, repeats=repeats)
    return ((shot.time, shot.frame) for shot in chosen)


def chosen_shots(
    video: Source[Payload], *, frames: int | None, fps: float | None, repeats: bool
) -> Iterator[Shot[Payload]]:
    """What `read_frames` would take of anything that shows frames; without `repeats` none twice.

    Raises UsageError, at once.
    """
    frames, fps = _number_or_rate(frames, fps)
    chosen = _chosen(video, frames, fps)
    return chosen if repeats else (next(same) for _, same in groupby(chosen, lambda shot: shot.time))


def _of_file(
    path: Path, resize: Resizer, frames: int | None, fps: float | None, snap: float | None, batch: int
) -> Iterator[FrameBatch]:
    with VideoFile(path) as video:
        shots = _chosen(video, frames, fps) if snap is None or not video.indexed else _near(video, frames, fps, snap)
        yield from _batches(shots, resize, batch)


def _near(video: VideoFile, frames: int | None, fps: float | None, snap: float) -> Iterator[Shot[VideoFrame]]:
    first, last = video.span()
    if fps is not None:
        times: Iterator[float] = takewhile(lambda time: time <= last + TOLERANCE, paced(first, fps))
    else:
        assert frames is not None
        times = spread(first, last, frames)
    yield from shown_at(times, video.shots(), until_end=False, skip=video.skip, near=lambda t: video.near(t, snap))


def _chosen(video: Source[Payload], frames: int | None, fps: float | None) -> Iterator[Shot[Payload]]:
    if frames is not None:
        first, last = video.span()
        yield from shown_at(spread(first, last, frames), video.shots(), until_end=False, skip=video.skip)
        return
    shots = video.shots()
    head = next(shots, None)
    if head is None:
        raise unreadable(video)
    shots = chain([head], shots)
    yield from shots if fps is None else shown_at(paced(head.time, fps), shots, until_end=True, skip=video.skip)


def _batches(
    shots: Iterator[Shot[VideoFrame]] | Iterator[Shot[Pixels]], resize: Resizer, batch: int
) -> Iterator[FrameBatch]:
    pixels: list[Pixels] = []
    times: list[float] = []
    latest: VideoFrame | Pixels | None = None
    for shot in shots:
        # A frame shown twice is resized once.
        pixels.append(pixels[-1] if pixels and shot.frame is latest else resize(shot.frame))
        times.append(shot.time)
        latest = shot.frame
        if len(pixels) == batch:
            yield FrameBatch(np.stack(pixels), np.array(times))
            pixels, times = [], []
    if pixels:
        yield FrameBatch(np.stack(pixels), np.array(times))


def local_path(source: str | os.PathLike[str]) -> Path:
    """The path of a folder, or of a file with something in it; raises VideoError."""
    name = os.fspath(source)
    if "://" in name:
        raise VideoError(f"{name} is not a local file: download it first and give its path.")
    path = Path(name)
    if not os.path.isdir(path):
        check_file(path)
    return path


def _number_or_rate(frames: int | None, fps: float | None) -> tuple[int | None, float | None]:
    if frames is not None and fps is not None:
        raise UsageError("frames and fps exclude each other: give one of them.")
    frames = None if frames is None else whole_number("frames", frames, MAX_FRAMES)
    return frames, None if fps is None else rate(fps)


def whole_number(name: str, value: int, most: int) -> int:
    """A number from 1 to `most`; raises UsageError."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise UsageError(f"{name} is {value!r}: give a whole number from 1 to {most}.") from error
    if not 1 <= number <= most or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}: give a whole number from 1 to {most}.")
    return number


def rate(fps: float) -> float:
    """Frames a second; raises UsageError."""
    number = _number(fps)
    if not MIN_FPS <= number <= MAX_FPS:
        raise UsageError(f"fps is {fps!r}: give frames per second, from {MIN_FPS} to {MAX_FPS}.")
    return number


def _seconds(snap: float) -> float:
    number = _number(snap)
    if not 0 <= number < math.inf:
        raise UsageError(f"snap is {snap!r}: give the seconds that a keyframe may be away, 0 or more.")
    return number


def _number(value: float) -> float:
    try:
        return math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
