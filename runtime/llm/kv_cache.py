"""Key-value buffers of the ONNX Runtime decoder: grown in steps, because it attends over the whole buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.config.sizes import STEP
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import import_onnxruntime


class KvCache:
    """One buffer [1, kv_heads, M, head] per name, bound as a graph's past and present: it is updated in place."""

    def __init__(
        self,
        names: list[tuple[str, str]],
        heads: int,
        head_dim: int,
        dtype: npt.DTypeLike,
        max_length: int,
    ) -> None:
        self._names, self._heads, self._head_dim = names, heads, head_dim
        self._dtype, self._max_length = np.dtype(dtype), max_length
        self.length = 0
        self._buffers = [self._zeros(0) for _ in names]

    def fit(self, needed: int, kept: int) -> None:
        """Make M the step that holds `needed` tokens, preserving the first `kept`; shrinks as well as grows.

        M depends on `needed` alone, so that a question asked again after `rewind` is computed in the same shapes and
        gives the same answer to the last bit.
        """
        length = min(-(-needed // STEP) * STEP, self._max_length)
        if length == self.length:
            return
        self.length = -1  # until every buffer has the new length
        try:
            for i, old in enumerate(self._buffers):
                grown = self._zeros(length)
                grown[:, :, :kept] = old[:, :, :kept]
                self._buffers[i] = grown
        except MemoryError as e:
            raise EngineError(
                f"not enough memory for a key-value cache of {length} tokens: use fewer frames, or a larger --sample."
            ) from e
        self.length = length

    def bind(self, binding: Any) -> None:
        """Bind every buffer as input and output of an IOBinding."""
        for (past, present), buffer in zip(self._names, self._buffers, strict=True):
            value = import_onnxruntime().OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)

    def _zeros(self, length: int) -> npt.NDArray[Any]:
        # Zeros, not whatever memory holds: a masked NaN is still NaN after the softmax's 0 * NaN.
        return np.zeros((1, self._heads, length, self._head_dim), self._dtype)
