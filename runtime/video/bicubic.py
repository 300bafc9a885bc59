"""What swscale's bicubic scaling computes, as matrices, for where swscale does not reach.

Source: libswscale/utils.c, initFilter with SWS_BICUBIC and its default parameters (0, 0.6); libswscale/output.c,
yuv2rgb_full_X. RGB is scaled as BT.601 YUV of limited range, first along the rows, then along the columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

_C = 0.6
_UNIT = 1 << 16  # of positions: a pixel of the source
# A row's result is kept in 15 bits, 128 to a level, and cut off above.
MOST = 32767 / 128

_KR, _KB = 0.299, 0.114  # BT.601
_KG = 1 - _KR - _KB
# (Y, U, V) from (R, G, B), in levels, without the offsets.
_TO_YUV = np.array(
    [
        [_KR, _KG, _KB],
        [-_KR / (2 - 2 * _KB), -_KG / (2 - 2 * _KB), 0.5],
        [0.5, -_KG / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)],
    ]
) * np.array([[219 / 255], [224 / 255], [224 / 255]])


class Colours(NamedTuple):
    """`frame @ to_yuv + offset`, channels last, and `yuv @ to_rgb + back`."""

    to_yuv: Matrix  # (3, 3)
    offset: Matrix  # (3,)
    to_rgb: Matrix  # (3, 3)
    back: Matrix  # (3,)


def colours() -> Colours:
    """The matrices between RGB and the YUV that is scaled."""
    offset, to_rgb = np.array([16.0, 128.0, 128.0]), np.linalg.inv(_TO_YUV.T)
    matrices = (_TO_YUV.T, offset, to_rgb, -offset @ to_rgb)
    return Colours(*(np.ascontiguousarray(matrix, np.float32) for matrix in matrices))


# (KR, KB) by AVColorSpace (libavutil/pixfmt.h), as swscale has them; 2, unspecified, is BT.601.
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)} | dict.fromkeys(
    (2, 5, 6), (_KR, _KB)
)


def decoded_colours(space: int, full: bool) -> tuple[Matrix, Matrix] | None:
    """What makes RGB of a decoded picture's (Y, U, V), channels last: `yuv @ matrix + offset`, (3, 3) and (3,).

    `space` is its AVColorSpace, `full` whether it uses all 256 levels. None where the space is none of the usual ones.
    Source: libswscale/yuv2rgb.c, ff_yuv2rgb_coeffs.
    """
    if space not in _LUMA:
        return None
    kr, kb = _LUMA[space]
    kg = 1 - kr - kb
    luma, chroma = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    matrix = np.array(
        [
            [1, 1, 1],
            [0, -2 * kb * (1 - kb) / kg, 2 - 2 * kb],
            [2 - 2 * kr, -2 * kr * (1 - kr) / kg, 0],
        ]
    ) * np.array([[luma], [chroma], [chroma]])
    offset = -np.array([0.0 if full else 16.0, 128.0, 128.0]) @ matrix
    return matrix.astype(np.float32), offset.astype(np.float32)


def weights(source: int, size: int, left: bool = False) -> Matrix:
    """What each of `size` pixels takes of a line of `source` pixels, (size, source); every row sums to 1.

    `left` is for chroma that lies at the left of the two pixels it is for, as H.264 and HEVC have it.
    """
    step = ((source << 16) + (size >> 1)) // size
    # Shrinking widens the filter, so that no pixel is passed over.
    taps = 5 if step <= _UNIT else 1 + (4 * source + size - 1) // size
    taps = max(min(taps, source - 2), 1)
    places = step - (_UNIT // 2 if left else _UNIT) + 2 * step * np.arange(size)  # twice the centres, in units
    # Towards zero, as C divides: near the left edge a filter loses what lies outside, instead of keeping it.
    starts = np.trunc((places - (taps - 2) * _UNIT) / (2 * _UNIT)).astype(int)
    at = starts[:, None] + np.arange(taps)  # (size, taps)
    distance = np.abs(at * 2 * _UNIT - places[:, None]) / (2 * _UNIT)
    if step > _UNIT:
        distance = distance * size / source
    taken = _bicubic(distance)
    taken /= taken.sum(1, keepdims=True)
    matrix = np.zeros((size, source))
    np.add.at(matrix, (np.arange(size)[:, None], np.clip(at, 0, source - 1)), taken)
    return matrix.astype(np.float32)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inner = (2 - _C) * x**3 + (_C - 3) * x**2 + 1
    outer = -_C * x**3 + 5 * _C * x**2 - 8 * _C * x + 4 * _C
    found: npt.NDArray[np.float64] = np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
    return found
