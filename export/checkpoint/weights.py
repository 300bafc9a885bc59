"""Reading a checkpoint's tensors one at a time, and writing tensors without holding them all.

The safetensors library checks a file's header against its length; what it does not know (an index over several files,
which types weights may have, what fits into float16) is here. Needs neither torch nor the memory of a whole model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

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
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import CheckpointError, UsageError

Array = npt.NDArray[Any]

NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_READ_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "U8": "uint8"}
_WRITE_CODES = {name: code for code, name in _READ_CODES.items()} | {
    "int8": "I8",
    "bool": "BOOL",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is known by type and shape, and made when it is written."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Bytes that its values take."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


class Weights:
    """The tensors of one safetensors file, or of a folder of them; close it, or use it in a `with`.

    Raises CheckpointError, naming the file and the tensor, for whatever is missing, damaged or contradictory.
    """

    def __init__(self, path: Path, files: Mapping[Path, Any], places: Mapping[str, Path]) -> None:
        self.path = path
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
        if code not in _READ_CODES:
            raise CheckpointError(
                f"tensor {name} in {self._places[name]} has type {code}: STORM weights are float32, float16 or"
                " bfloat16; convert it, or export from the unquantized checkpoint."
            )
        return _READ_CODES[code]

    def read(self, name: str, dtype: DType | None = None) -> Array:
        """One tensor, a copy of its own; `dtype` converts it (UsageError where its values do not fit).

        Raises CheckpointError naming a tensor that holds NaN or infinity.
        """
        tensor = self._read(name, 0, math.prod(self.shape(name))).reshape(self.shape(name))
        if name not in self._finite:
            if count := count_not_finite(tensor):
                raise CheckpointError(
                    f"tensor {name} in {self._places[name]} holds NaN or infinity ({count} of {tensor.size} values):"
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
            values: Array = np.fromfile(file, kind, count, offset=self._starts[file][name] + start * kind.itemsize)
        except (OSError, ValueError) as e:
            raise CheckpointError(f"tensor {name} in {file} cannot be read ({one_line(e)}): {RESTORE}") from e
        if values.size != count:
            raise CheckpointError(f"tensor {name} in {file} is not {list(shape)} any more: {RESTORE}")
        return values

    def _slice(self, name: str) -> Any:
        if name not in self._places:
            raise CheckpointError(f"tensor {name} is missing in {self.path}: {RESTORE}")
        return self._files[self._places[name]].get_slice(name)


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


def write_safetensors(
    path: Path, entries: Mapping[str, LazyTensor | Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors in the order given, one in memory at a time (the library's own writer needs all of them).

    `metadata` defaults to {"format": "pt"}, without which transformers refuses a file.
    Format: https://github.com/huggingface/safetensors#format
    """
    lazy = {name: e if isinstance(e, LazyTensor) else _whole(e) for name, e in entries.items()}
    # Larger element types first, as the library does, so that every tensor lies on a multiple of its own element size.
    order = sorted(lazy, key=lambda name: -lazy[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    end = 0
    for name in order:
        tensor = lazy[name]
        start, end = end, end + tensor.nbytes
        code = _WRITE_CODES[tensor.dtype.name]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            write_array(file, checked_read(lazy[name], name))


def checked_read(tensor: LazyTensor, name: str) -> Array:
    """The tensor's values; ValueError if they are not what it promised."""
    array = tensor.read()
    if array.dtype != tensor.dtype or array.shape != tensor.shape:
        raise ValueError(
            f"{name} was announced as {tensor.dtype}{list(tensor.shape)}, came as {array.dtype}{list(array.shape)}"
        )
    return array


def write_array(file: Any, array: Array) -> None:
    """Append an array's values to a binary file, little-endian and row-major, without another copy of it."""
    little = array if array.dtype.byteorder != ">" else array.astype(array.dtype.newbyteorder("<"))
    # bfloat16 offers no buffer, its bytes do.
    file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def _whole(array: Array) -> LazyTensor:
    return LazyTensor(array.dtype, array.shape, lambda: array)
