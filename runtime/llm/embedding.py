"""Rows of the token embedding table, read from the file when they are needed: a 7B table takes 1 GB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from storm_edge.runtime.errors import BundleError, UsageError

TENSOR_NAME = "embedding"
_TYPES = ("F32", "F16", "BF16")

Float32Array = npt.NDArray[np.float32]


class EmbeddingTable:
    """[vocabulary, D] of float32, float16 or bfloat16, memory-mapped."""

    def __init__(self, path: Path, rows: Any, file: Any) -> None:
        self._path, self._rows, self._file = path, rows, file  # the file must live as long as its slice
        self.vocab_size, self.width = (int(n) for n in rows.get_shape())

    @classmethod
    def open(cls, path: Path) -> EmbeddingTable:
        """Map a bundle's embedding.safetensors; raises BundleError."""
        try:
            file: Any = safe_open(path, framework="np")
            rows = file.get_slice(TENSOR_NAME)
            shape, kind = rows.get_shape(), rows.get_dtype()
        except (SafetensorError, OSError, ValueError) as e:
            reason = " ".join(str(e).split())
            raise BundleError(
                f"{path} cannot be read as an embedding table ({reason}): export the bundle again."
            ) from e
        if kind == "BF16":
            import ml_dtypes  # noqa: F401 - safetensors gives bfloat16 as numpy arrays once this has registered the type
        if len(shape) != 2 or kind not in _TYPES:
            raise BundleError(f"{path} holds {kind}{shape}, no floating-point table: export the bundle again.")
        return cls(path, rows, file)

    def rows(self, ids: Sequence[int]) -> Float32Array:
        """float32 [len(ids), D]; UsageError for an id outside the vocabulary."""
        wrong = [i for i in ids if not 0 <= i < self.vocab_size]
        if wrong:
            raise UsageError(f"token id {wrong[0]} is outside the vocabulary of {self.vocab_size} in {self._path}.")
        table = np.empty((len(ids), self.width), np.float32)
        for row, token in enumerate(ids):
            table[row] = self._rows[int(token)].astype(np.float32)
        return table
