"""Any frame to the model's square of RGB bytes.

Files and arrays take the same way through swscale, so the same pixels give the same frame whichever way they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
from av import VideoFrame
from av.video.reformatter import VideoReformatter

Pixels = npt.NDArray[np.uint8]

# libswscale/swscale.h; PyAV names all of them from version 18 on only.
_BICUBIC, _FULL_CHROMA_OUT, _FULL_CHROMA_IN, _ACCURATE, _BITEXACT = 1 << 2, 1 << 13, 1 << 14, 1 << 18, 1 << 19
# By default swscale halves the chroma of RGB and is up to 13 levels off. Bit-exact: the same bytes on x86 and arm.
_FLAGS = _BICUBIC | _FULL_CHROMA_OUT | _FULL_CHROMA_IN | _ACCURATE | _BITEXACT


class Resizer:
    """Makes uint8 [size, size, 3] of decoded frames and of uint8 arrays [H, W, 3]: swscale bicubic, aspect not kept."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._to_rgb = VideoReformatter()
        self._to_size = VideoReformatter()

    def __call__(self, frame: VideoFrame | Pixels) -> Pixels:
        """The frame upright, in RGB, at the model's size; transparency is dropped."""
        if isinstance(frame, np.ndarray):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if frame.format.is_rgb:
            # swscale rounds other RGB layouts differently when it scales them: let all scale as rgb24.
            frame = self._to_rgb.reformat(frame, format="rgb24", interpolation=_FLAGS)
        resized = self._to_size.reformat(frame, self.size, self.size, "rgb24", interpolation=_FLAGS)
        return _upright(np.asarray(resized.to_ndarray(), dtype=np.uint8), frame)


def _upright(pixels: Pixels, frame: VideoFrame) -> Pixels:
    """Turns and mirrors `pixels` [size, size, 3] as the frame's display matrix says (phones record so)."""
    # PyAV's types know motion vectors only.
    matrix = cast("Mapping[str, bytes]", frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    # Row-major 3 x 3; (x, y) goes to (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):  # mostly a quarter turn: x and y change places
        pixels = pixels.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
