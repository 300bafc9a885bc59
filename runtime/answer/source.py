"""Whatever shows frames, opened: from a file, from memory, or from a GPU's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.on_device import as_source, decoded_frames, device_frames, on_gpu
from storm_edge.runtime.answer.still import StillFrames
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.video import FrameBatch, read_frames
from storm_edge.runtime.video.reading import VideoSource, chosen_frames, local_path, without_repeats

DECODERS = ("pyav", "nvdec")


@dataclass(frozen=True)
class OpenedSource:
    """Batches of frames; what finds still ones among them, if that is looked for; whether a thread reads ahead."""

    batches: Iterator[FrameBatch]
    still: StillFrames | None
    beside: bool


def open_source(
    source: VideoSource,
    vision: Session,
    *,
    size: int,
    frames: int | None,
    fps: float | None,
    timestamps: npt.ArrayLike | None,
    snap: float | None,
    skip_still: int,
    decoder: str,
    repeats: bool,
) -> OpenedSource:
    """Frames at the model's size, as many at a time as `vision` takes; see `Pipeline.open`.

    Without `repeats` no frame comes twice.
    Raises UsageError and VideoError, at once for wrong arguments.
    """
    if decoder not in DECODERS:
        raise UsageError(f"decoder is {decoder!r}: give {' or '.join(DECODERS)}.")
    given: Any = as_source(source)
    still = StillFrames(skip_still)
    if (decoder == "nvdec" or on_gpu(given)) and (snap is not None or skip_still):
        raise UsageError("snap and skip_still need frames on the host: leave them out for frames on a GPU.")
    if decoder == "nvdec":
        path = local_path(given) if isinstance(given, str | os.PathLike) else None
        if path is None or os.path.isdir(path) or timestamps is not None:
            raise UsageError("NVDEC decodes a video file with its own timestamps: leave it out for anything else.")
        decoded = decoded_frames(
            path, vision.device, size=size, batch=vision.batch, frames=frames, fps=fps, repeats=repeats
        )
        return OpenedSource(decoded, None, beside=False)
    if on_gpu(given):
        chosen = chosen_frames(given.shape[0], frames=frames, fps=fps, timestamps=timestamps, repeats=repeats)
        there = device_frames(given, vision.device, chosen, size=size, batch=vision.batch)
        return OpenedSource(there, None, beside=False)
    batches = read_frames(
        given, size=size, frames=frames, fps=fps, batch=vision.batch, timestamps=timestamps, snap=snap
    )
    if not repeats:
        batches = without_repeats(batches)
    # An iterable is its owner's code, and stays in the owner's thread.
    return OpenedSource(batches, still, beside=isinstance(given, str | os.PathLike | np.ndarray))
