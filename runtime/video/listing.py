"""Frames that are already in memory: arrays, and iterables of timestamped arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video.resizing import Pixels
from storm_edge.runtime.video.sampling import Payload, Shot


class FrameList(Generic[Payload]):
    """Frames, or what stands for them, and when they appear, in seconds; any number of passes."""

    def __init__(self, times: Sequence[float], frames: Iterable[Payload]) -> None:
        self._times, self._frames = times, frames

    def shots(self) -> Iterator[Shot[Payload]]:
        """All frames in order."""
        return (Shot(time, frame) for time, frame in zip(self._times, self._frames, strict=True))

    def span(self) -> tuple[float, float]:
        """When the first and the last frame appear."""
        return self._times[0], self._times[-1]

    def skip(self, now: float, time: float) -> None:
        """Passing over a frame costs nothing."""

    def __str__(self) -> str:
        return "the array"


class FrameStream:
    """The frames of an iterable of (seconds, uint8 [H, W, 3]); one pass."""

    def __init__(self, pairs: Iterable[tuple[float, Pixels]], resize: Callable[[Pixels], Pixels]) -> None:
        try:
            self._pairs = iter(pairs)
        except TypeError as error:
            raise UsageError(
                f"{type(pairs).__name__} is no kind of video: give a path, a uint8 array or pairs of (seconds, frame)."
            ) from error
        self._resize = resize
        self._kept: list[Shot[Pixels]] | None = None

    def shots(self) -> Iterator[Shot[Pixels]]:
        """All frames in order: as they come, or those that `span` kept."""
        return iter(self._kept) if self._kept is not None else checked_pairs(self._pairs)

    def span(self) -> tuple[float, float]:
        """When the first and the last frame appear; runs to the end and keeps every frame at the model's size."""
        self._kept = [Shot(shot.time, self._resize(shot.frame)) for shot in checked_pairs(self._pairs)]
        if not self._kept:
            raise VideoError(f"no frame of {self} can be read: it is empty.")
        return self._kept[0].time, self._kept[-1].time

    def skip(self, now: float, time: float) -> None:
        """Nothing can be passed over unseen."""

    def __str__(self) -> str:
        return "the iterable"


def from_array(frames: npt.NDArray[np.generic], timestamps: npt.ArrayLike | None) -> FrameList[Pixels]:
    """The frames of a uint8 array [T, H, W, 3]; timestamps float [T], by default 0, 1, 2... seconds."""
    check_array(frames.dtype, frames.shape)
    return FrameList(frame_times(len(frames), timestamps), frames.astype(np.uint8, copy=False))


def check_array(dtype: object, shape: Sequence[int]) -> None:
    """Raises UsageError unless an array is frames: uint8 [T, H, W, 3]."""
    if str(dtype) != "uint8" or len(shape) != 4 or shape[3] != 3 or not math.prod(shape):
        raise UsageError(f"the frames are {dtype} {list(shape)}: give uint8 RGB of shape [frames, height, width, 3].")


def frame_times(count: int, timestamps: npt.ArrayLike | None) -> list[float]:
    """When `count` frames appear: at `timestamps` [count], or one a second; raises UsageError if these do not fit."""
    if timestamps is None:
        return [float(i) for i in range(count)]
    try:
        times = np.asarray(timestamps, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError("the timestamps are not numbers: give the seconds at which the frames appear.") from error
    if times.shape != (count,):
        raise UsageError(f"the timestamps have shape {list(times.shape)}: give one for each of {count} frames.")
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise UsageError("the timestamps are not ascending numbers: give the seconds at which the frames appear.")
    return [float(time) for time in times]


def checked_pairs(pairs: Iterable[tuple[float, Pixels]], *, ascending: bool = True) -> Iterator[Shot[Pixels]]:
    """Pairs of (seconds, uint8 [H, W, 3]) as shots; raises UsageError at what is none, or where time falls back."""
    # Copies, because a camera may fill one buffer again and again while a frame waits here.
    latest = -math.inf
    for index, pair in enumerate(pairs):
        try:
            time, frame = float(pair[0]), np.array(pair[1])
        except (TypeError, ValueError, IndexError) as error:
            raise UsageError(
                f"item {index} of the video is not a pair: yield (seconds, uint8 [height, width, 3])."
            ) from error
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise UsageError(
                f"frame {index} is {frame.dtype} {list(frame.shape)}: give uint8 RGB of shape [height, width, 3]."
            )
        if not math.isfinite(time) or (ascending and time < latest):
            raise UsageError(f"frame {index} has the timestamp {time}, after {latest}: timestamps must ascend.")
        latest = time
        yield Shot(time, frame)
