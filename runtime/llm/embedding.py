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
NEWLINE_NAME = "image_newline"  # [1, D], where the model has one: the row after the vocabulary's last
_TYPES = ("F32", "F16", "BF16")

Float32Array = npt.NDArray[np.float32]


class EmbeddingTable:
    """[vocabulary, D] of float32, float16 or bfloat16, memory-mapped, and the row of a trained line end."""

    def __init__(self, path: Path, rows: Any, file: Any, newline: Float32Array | None = None) -> None:
        self._path, self._rows, self._file = path, rows, file  # the file must live as long as its slice
        self._newline = newline
        self.vocab_size, self.width = (int(n) for n in rows.get_shape())

    @classmethod
    def open(cls, path: Path) -> EmbeddingTable:
        """Map a bundle's embedding.safetensors; raises BundleError."""
        try:
            file: Any = safe_open(path, framework="np")
            rows = file.get_slice(TENSOR_NAME)
            shape, kind = rows.get_shape(), rows.get_dtype()
            extra = file.get_slice(NEWLINE_NAME) if NEWLINE_NAME in file.keys() else None  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError) as e:
            reason = " ".join(str(e).split())
            raise BundleError(
                f"{path} cannot be read as an embedding table ({reason}): export the bundle again."
            ) from e
        if kind == "BF16":
            import ml_dtypes  # noqa: F401 - safetensors gives bfloat16 as numpy arrays once this has registered the type
        if len(shape) != 2 or kind not in _TYPES:
            raise BundleError(f"{path} holds {kind}{shape}, no floating-point table: export the bundle again.")
        if extra is None:
            return cls(path, rows, file)
        if extra.get_shape() != [1, shape[1]] or extra.get_dtype() not in _TYPES:
            raise BundleError(f"{path} holds a line end of another shape than its rows: export the bundle again.")
        return cls(path, rows, file, extra[0].astype(np.float32))

    def rows(self, ids: Sequence[int]) -> Float32Array:
        """float32 [len(ids), D]; UsageError for an id outside the vocabulary, whose size is the line end's id."""
        last = self.vocab_size - (self._newline is None)
        wrong = [i for i in ids if not 0 <= i <= last]
        if wrong:
            raise UsageError(f"token id {wrong[0]} is outside the vocabulary of {self.vocab_size} in {self._path}.")
        table = np.empty((len(ids), self.width), np.float32)
        for row, token in enumerate(ids):
            table[row] = self._newline if token == self.vocab_size else self._rows[int(token)].astype(np.float32)
        return table
