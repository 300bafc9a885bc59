"""From batches of frames to the tokens of a clip."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.answer.clip_tokens import ClipTokens
from storm_edge.runtime.answer.source import OpenedSource
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.sessions.device import Stopwatch
from storm_edge.runtime.video.ahead import ahead


@dataclass(frozen=True)
class EncodedFrames:
    """Tokens of T frames, their timestamps (T,), and how many took the tokens of the frame before."""

    tokens: ClipTokens
    timestamps: npt.NDArray[np.float64]
    reused: int
    waited: float  # seconds for frames
    vision: Stopwatch


def encode_frames(
    encoders: Encoders, opened: OpenedSource, *, frames: int | None, check: Callable[[int], None]
) -> EncodedFrames:
    """Run vision over all frames but still ones; `frames` is how many will come, as far as that is known.

    `check` is told how many frames there are before a batch is encoded. Raises VideoError where there are none,
    EngineError, and what the source raises.
    """
    batches, still = opened.batches, opened.still
    tokens, times, waited = encoders.tokens(frames), [], 0.0
    vision = Stopwatch(encoders.vision_session.device)
    with ExitStack() as stack:
        if opened.beside:
            batches = stack.enter_context(closing(ahead(batches)))
        start = time.perf_counter()
        for batch in batches:
            waited += time.perf_counter() - start
            check(tokens.count + len(batch.frames))
            with vision:
                if still is None:
                    tokens.add(encoders.vision(batch.frames))
                else:
                    _add(tokens, encoders, batch.frames, still.moving(batch.frames))
            times.append(batch.timestamps)
            start = time.perf_counter()
    if not times:
        raise VideoError("the video has no frames: give one with at least one.")
    return EncodedFrames(tokens, np.concatenate(times), still.count if still else 0, waited, vision)


def _add(tokens: ClipTokens, encoders: Encoders, frames: npt.NDArray[np.uint8], moving: npt.NDArray[np.bool_]) -> None:
    if moving.all():
        tokens.add(encoders.vision(frames))
        return
    new = encoders.vision(frames[moving]) if moving.any() else None  # (moving, N, D)
    for place in np.cumsum(moving) - 1:
        tokens.add(tokens.last() if new is None or place < 0 else new[place : place + 1])
