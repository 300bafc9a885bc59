"""The rounding of a linear layer's weight in blocks of inputs that share a scale: one for every engine.

An engine's file is only another order of these numbers, so int4 means the same model everywhere.
Integers are two's complement, -8..7 or -128..127, without a zero point; scales are positive, because TensorRT takes no
others, and bfloat16 numbers, which float32 and (from 2**-17 upward) float16 hold exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Bits = Literal[4, 8]
Float32 = NDArray[np.float32]
# Steps from 0 to a block's largest magnitude. More than there are cut it off, and are finer for all others: in blocks
# of 128 the best of these leaves 12% less error than 7 steps, and less than giving the largest magnitude -8 whatever
# its sign, which takes negative scales.
_STEPS = {4: (7.0, 7.5, 8.0, 8.5, 9.0), 8: (127.0,)}
_OUTPUTS = 1024
_SMALLEST = np.float32(2.0**-24)  # of a scale: float16's; a block of zeros has it


def block_scales(weight: NDArray[Any], block: int, bits: Bits) -> Float32:
    """Scales [ceil(inputs / block), outputs] for a floating weight [inputs, outputs], by the least squared error."""
    inputs, outputs = weight.shape
    made = np.empty((-(-inputs // block), outputs), np.float32)
    for index, rows, columns in _pieces(inputs, outputs, block):
        made[index, columns] = _scales(weight[rows, columns].astype(np.float32), bits)
    return made


def block_integers(weight: NDArray[Any], scales: Float32, block: int, bits: Bits) -> NDArray[np.int8]:
    """Integers int8 [inputs, outputs], to nearest, for the scales as they are stored."""
    inputs, outputs = weight.shape
    made = np.empty((inputs, outputs), np.int8)
    for index, rows, columns in _pieces(inputs, outputs, block):
        made[rows, columns] = _rounded(weight[rows, columns].astype(np.float32), scales[index, columns], bits)
    return made


def _pieces(inputs: int, outputs: int, block: int) -> Iterator[tuple[int, slice, slice]]:
    """Every block's index, its inputs and some of its outputs, so that a piece stays in the processor's cache."""
    for index in range(-(-inputs // block)):
        for start in range(0, outputs, _OUTPUTS):
            yield index, slice(index * block, (index + 1) * block), slice(start, start + _OUTPUTS)


def _scales(slab: Float32, bits: Bits) -> Float32:
    """The best scales [outputs] for one block [inputs, outputs]."""
    largest = np.abs(slab).max(axis=0)
    best: Float32 = largest
    least: Float32 = np.full(len(largest), np.inf, np.float32)
    for steps in _STEPS[bits]:
        scale = np.maximum(largest / steps, _SMALLEST).astype(ml_dtypes.bfloat16).astype(np.float32)
        off = _rounded(slab, scale, bits) * scale - slab
        error: Float32 = np.einsum("io,io->o", off, off)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _rounded(slab: Float32, scale: Float32, bits: Bits) -> Float32:
    middle = 1 << (bits - 1)
    rounded: Float32 = np.rint(slab / scale).clip(-middle, middle - 1)
    return rounded
