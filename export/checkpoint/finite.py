"""Finding NaN and infinity in a tensor, with little memory beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1 << 22  # values that are looked at together
# The exponent's bits of a 16-bit type: all of them set is NaN or infinity. Faster than the types' own arithmetic.
_EXPONENTS = {"float16": np.uint16(0x7C00), "bfloat16": np.uint16(0x7F80)}


def count_not_finite(array: npt.NDArray[Any]) -> int:
    """How many values of a tensor are NaN or infinite; integers never are."""
    flat = array.reshape(-1)
    return sum(_count(flat[start : start + _BLOCK]) for start in range(0, flat.size, _BLOCK))


def _count(values: npt.NDArray[Any]) -> int:
    exponent = _EXPONENTS.get(values.dtype.name)
    if exponent is not None:
        return int(np.count_nonzero((values.view(np.uint16) & exponent) == exponent))
    return 0 if values.dtype.kind in "iub" else int(np.count_nonzero(~np.isfinite(values)))
