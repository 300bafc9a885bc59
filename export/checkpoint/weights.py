"""Reading a checkpoint's tensors one at a time.

The safetensors library checks a file's header against its length; what it does not know (an index over several files,
which types weights may have, what fits into float16) is here. Needs neither torch nor the memory of a whole model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np

from storm_edge.export.checkpoint.finite import count_not_finite
from storm_edge.export.checkpoint.shards import (
    INDEX_NAME,
    RESTORE,
    compare_with_index,
    files_of,
    one_line,
    open_file,
    read_index,
    starts_of,
)
from storm_edge.export.checkpoint.writing import READ_CODES
from storm_edge.export.checkpoint.writing import Array as Array
from storm_edge.export.checkpoint.writing import LazyTensor as LazyTensor
from storm_edge.export.checkpoint.writing import checked_read as checked_read
from storm_edge.export.checkpoint.writing import write_array as write_array
from storm_edge.export.checkpoint.writing import write_safetensors as write_safetensors
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import CheckpointError, UsageError

NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class Weights:
    """The tensors of one safetensors file, or of a folder of them; close it, or use it in a `with`.

    Raises CheckpointError, naming the file and the tensor, for whatever is missing, damaged or contradictory.
    """

    def __init__(
        self,
        path: Path,
        files: Mapping[Path, Any],
        places: Mapping[str, Path],
        stored: Mapping[str, str] | None = None,
    ) -> None:
        """`places` are the files that hold the tensors, under the names in `stored` where these are others."""
        self.path = path
        self._stored = dict(stored or {})
        self._files = dict(files)
        self._places = dict(places)
        self._starts = {file: starts_of(file) for file in files}
        self._finite: set[str] = set()  # tensors whose values have been looked at

    @classmethod
    def open(cls, path: Path) -> Weights:
        """Open a file, or a folder with `model.safetensors`, its index and shards, or one other safetensors file."""
        files: dict[Path, Any] = {}
        places: dict[str, Path] = {}
        index = read_index(path) if path.is_dir() and (path / INDEX_NAME).exists() else None
        for file in files_of(path, index):
            files[file] = open_file(file)
            for name in files[file].keys():  # noqa: SIM118 - not a mapping
                if name in places:
                    raise CheckpointError(
                        f"tensor {name} is in both {places[name]} and {file}: remove the file that does not belong."
                    )
                places[name] = file
        if index is not None:
            compare_with_index(path / INDEX_NAME, index, places)
        return cls(path, files, places)

    def renamed(self, stored: Mapping[str, str]) -> Weights:
        """Some of the tensors under other names: `stored` maps those to the names that they have here."""
        places = {name: self._places[old] for name, old in stored.items()}
        return Weights(self.path, self._files, places, {name: self.stored(old) for name, old in stored.items()})

    @property
    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._places)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape; reads headers only."""
        return {name: self.shape(name) for name in self.names}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self.lazy(name).nbytes for name in self.names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Type of one tensor, named as numpy does: "float32", "bfloat16"..."""
        code = self._slice(name).get_dtype()
        if code not in READ_CODES:
            raise CheckpointError(
                f"tensor {self._said(name)} has type {code}: weights are float32, float16 or"
                " bfloat16; convert it, or export from the unquantized checkpoint."
            )
        return READ_CODES[code]

    def read(self, name: str, dtype: DType | None = None) -> Array:
        """One tensor, a copy of its own; `dtype` converts it (UsageError where its values do not fit).

        Raises CheckpointError naming a tensor that holds NaN or infinity.
        """
        tensor = self._read(name, 0, math.prod(self.shape(name))).reshape(self.shape(name))
        if name not in self._finite:
            if count := count_not_finite(tensor):
                raise CheckpointError(
                    f"tensor {self._said(name)} holds NaN or infinity ({count} of {tensor.size} values):"
                    " use a checkpoint from before the training went wrong, or copy it again from its source."
                )
            self._finite.add(name)
        return tensor if dtype is None else convert(tensor, dtype, name)

    def blocks(self, name: str, size: int) -> Iterator[Array]:
        """The values of one tensor, row-major, `size` at a time."""
        total = math.prod(self.shape(name))
        for start in range(0, total, size):
            yield self._read(name, start, min(size, total - start))

    def lazy(self, name: str, dtype: DType | None = None) -> LazyTensor:
        """One tensor to be read, and converted to `dtype`, when it is needed."""
        kept = np.dtype(self.dtype(name)) if dtype is None else NUMPY_DTYPES[dtype]
        return LazyTensor(kept, self.shape(name), lambda: self.read(name, dtype))

    def stored(self, name: str) -> str:
        """What a tensor is called in its file."""
        return self._stored.get(name, name)

    def place(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._places[name]

    def close(self) -> None:
        """Release the files."""
        for file in self._files.values():
            file.__exit__(None, None, None)
        self._files.clear()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _read(self, name: str, start: int, count: int) -> Array:
        """`count` values of a tensor from the value `start` on."""
        kind, shape, file = np.dtype(self.dtype(name)), self.shape(name), self._places[name]
        # Not through the library's memory map: the pages of a whole checkpoint would count as this process's memory.
        try:
            values: Array = np.fromfile(
                file, kind, count, offset=self._starts[file][self.stored(name)] + start * kind.itemsize
            )
        except (OSError, ValueError) as e:
            raise CheckpointError(f"tensor {self._said(name)} cannot be read ({one_line(e)}): {RESTORE}") from e
        if values.size != count:
            raise CheckpointError(f"tensor {self._said(name)} is not {list(shape)} any more: {RESTORE}")
        return values

    def _said(self, name: str) -> str:
        return f"{self.stored(name)} in {self._places[name]}"

    def _slice(self, name: str) -> Any:
        if name not in self._places:
            raise CheckpointError(f"tensor {name} is missing in {self.path}: {RESTORE}")
        return self._files[self._places[name]].get_slice(self.stored(name))


def convert(tensor: Array, dtype: DType, name: str) -> Array:
    """`tensor` in another floating type, rounded to nearest; UsageError where a finite value becomes infinite.

    A transposed view comes out row-major: turning a narrow type while widening it is several times faster than after.
    """
    wanted = NUMPY_DTYPES[dtype]
    if tensor.dtype == wanted:
        return tensor
    with np.errstate(over="ignore"):
        converted = tensor.astype(wanted, order="C")
    if wanted.itemsize < tensor.dtype.itemsize or dtype == "float16":
        lost = ~np.isfinite(converted) & np.isfinite(tensor)
        if lost.any():
            largest = float(np.abs(tensor[lost].astype(np.float32)).max())
            raise UsageError(f"tensor {name} holds {largest:g}, beyond {dtype}: export with --dtype bfloat16 instead.")
    return converted
