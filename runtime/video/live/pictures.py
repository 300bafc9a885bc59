"""Frames of a live video as people want to see them: upright, with their aspect, and not larger than they need be."""

from __future__ import annotations

import math

import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.resizing import DisplayMatrix, Pixels, display_matrix, upright

_ONE, _ALL = 640 * 480, 64 << 20  # pixels of a picture, bytes of all of a window


def picture_pixels(window: int) -> int:
    """Pixels that each of `window` pictures may have."""
    return min(_ONE, _ALL // (3 * window))


class PictureMaker:
    """Makes uint8 [H, W, 3] with even sides and at most `pixels` pixels; one for each source, as the display matrix of
    its first frame holds for all.
    """

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._reformatter = VideoReformatter()
        self._matrix: DisplayMatrix | None = None

    def __call__(self, frame: VideoFrame | Pixels) -> Pixels:
        """The frame in RGB; raises VideoError where its shape is too uneven for that."""
        if isinstance(frame, np.ndarray):
            self._matrix = 1, 0, 0, 1
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        elif self._matrix is None:
            self._matrix = display_matrix(frame)
        share = min(1.0, math.sqrt(self._pixels / (frame.width * frame.height)))
        width, height = (
            min(max(int(side * share) // 2, 1), self._pixels // 4) * 2 for side in (frame.width, frame.height)
        )
        try:
            reduced = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC)
        except (FFmpegError, MemoryError, ValueError) as error:
            raise VideoError(
                f"a frame of {frame.width} x {frame.height} pixels cannot be made a picture: give a more even shape."
            ) from error
        return np.ascontiguousarray(upright(np.asarray(reduced.to_ndarray(), dtype=np.uint8), self._matrix))
