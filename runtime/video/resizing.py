"""Any frame to the model's square of RGB bytes.

Files and arrays take the same way through swscale, so the same pixels give the same frame whichever way they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from storm_edge.runtime.errors import VideoError

Pixels = npt.NDArray[np.uint8]
# Its a, b, c, d: the point (x, y) goes to (a x + c y, b x + d y).
DisplayMatrix = tuple[int, int, int, int]

# libswscale/swscale.h; PyAV names all of them from version 18 on only.
_BICUBIC, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE, _BITEXACT = 1 << 2, 1 << 13, 1 << 14, 1 << 18, 1 << 19
# By default swscale halves the chroma of RGB and is up to 13 levels off. Bit-exact: the same bytes on x86 and arm.
_FLAGS = _BICUBIC | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE | _BITEXACT

# A side may be so many times as long as it shall be; from 52 times on swscale refuses some shapes.
_LONG = 32


def _unlisted(kind: type[Any], value: object) -> Any:
    member = object.__new__(kind)
    member._name_, member._value_ = f"TYPE_{value}", value
    return member


# PyAV 18's list of side data ends before that of the FFmpeg it brings, and one kind it does not know (EXIF, which every
# photo has) keeps all others from being read.
SideDataType._missing_ = classmethod(_unlisted)  # type: ignore[assignment]


class Resizer:
    """Makes uint8 [size, size, 3] of decoded frames and of uint8 arrays [H, W, 3]: swscale bicubic, aspect not kept.

    One for each source: frames are turned and mirrored as the display matrix of the first one says (phones record so).
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._to_rgb = VideoReformatter()
        self._to_grown = VideoReformatter()
        self._to_size = VideoReformatter()
        self._matrix: DisplayMatrix | None = None

    def __call__(self, frame: VideoFrame | Pixels) -> Pixels:
        """The frame upright, in RGB, at the model's size; transparency is dropped."""
        if isinstance(frame, np.ndarray):
            return self._resized(VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))
        if self._matrix is None:
            self._matrix = display_matrix(frame)
        return np.ascontiguousarray(upright(self._resized(frame), self._matrix))

    def _resized(self, frame: VideoFrame) -> Pixels:
        size, width, height = self._size, frame.width, frame.height
        try:
            if frame.format.is_rgb:
                # swscale rounds other RGB layouts differently when it scales them: let all scale as rgb24.
                frame = self._to_rgb.reformat(frame, format="rgb24", interpolation=_FLAGS)
            if min(width, height) < size and max(width, height) > _LONG * size:
                # swscale cannot shorten a long side by so much while the other one is short: let that one grow first.
                frame = self._to_grown.reformat(
                    frame, max(width, size), max(height, size), "rgb24", interpolation=_FLAGS
                )
            resized = self._to_size.reformat(frame, size, size, "rgb24", interpolation=_FLAGS)
        except (FFmpegError, MemoryError, ValueError) as error:
            raise VideoError(
                f"a frame of {width} x {height} pixels ({frame.format.name}) cannot be scaled to {size} x {size}:"
                " convert it to 8-bit RGB or YUV of a more even shape."
            ) from error
        return np.asarray(resized.to_ndarray(), dtype=np.uint8)


def display_matrix(frame: VideoFrame) -> DisplayMatrix:
    """How a decoded frame says that it lies."""
    # Asked of one frame only: PyAV's side data and its frame hold each other, so that such frames pile up until Python
    # looks for cycles. Its types know motion vectors only.
    data = cast("Mapping[str, bytes]", frame.side_data).get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()  # 3 x 3, row-major
    return a, b, c, d


def upright(pixels: Any, matrix: DisplayMatrix) -> Any:
    """[H, W, 3] turned and mirrored by quarters, as a view."""
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):  # mostly a quarter turn: x and y change places
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
