"""Reading a checkpoint's tensors one at a time, and writing tensors without holding them all.

The safetensors library checks a file's header against its length; what it does not know (an index over several files,
which types weights may have, what fits into float16) is here. Needs neither torch nor the memory of a whole model.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.errors import CheckpointError, UsageError

Array = npt.NDArray[Any]

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
NUMPY_DTYPES: dict[DType, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_READ_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "U8": "uint8"}
_WRITE_CODES = {name: code for code, name in _READ_CODES.items()} | {"int8": "I8", "bool": "BOOL", "float64": "F64"}
_RESTORE = "copy the checkpoint again from its source."


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
        self._starts = {file: _starts(file) for file in files}

    @classmethod
    def open(cls, path: Path) -> Weights:
        """Open a file, or a folder with `model.safetensors`, its index and shards, or one other safetensors file."""
        files: dict[Path, Any] = {}
        places: dict[str, Path] = {}
        index = _read_index(path) if path.is_dir() and (path / INDEX_NAME).exists() else None
        for file in _files_of(path, index):
            files[file] = _open_file(file)
            for name in files[file].keys():  # noqa: SIM118 - not a mapping
                if name in places:
                    raise CheckpointError(
                        f"tensor {name} is in both {places[name]} and {file}: remove the file that does not belong."
                    )
                places[name] = file
        if index is not None:
            _compare_with_index(path / INDEX_NAME, index, places)
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
        """One tensor, a copy of its own; `dtype` converts it (UsageError where its values do not fit)."""
        file, shape = self._places[name], self.shape(name)
        # Not through the library's memory map: the pages of a whole checkpoint would count as this process's memory.
        try:
            tensor: Array = np.fromfile(
                file, np.dtype(self.dtype(name)), math.prod(shape), offset=self._starts[file][name]
            ).reshape(shape)
        except (OSError, ValueError) as e:
            raise CheckpointError(f"tensor {name} in {file} cannot be read ({_line(e)}): {_RESTORE}") from e
        return tensor if dtype is None else convert(tensor, dtype, name)

    def lazy(self, name: str, dtype: DType | None = None) -> LazyTensor:
        """One tensor to be read, and converted to `dtype`, when it is needed."""
        kept = np.dtype(self.dtype(name)) if dtype is None else NUMPY_DTYPES[dtype]
        return LazyTensor(kept, self.shape(name), lambda: self.read(name, dtype))

    def close(self) -> None:
        """Release the files."""
        for file in self._files.values():
            file.__exit__(None, None, None)
        self._files.clear()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _slice(self, name: str) -> Any:
        if name not in self._places:
            raise CheckpointError(f"tensor {name} is missing in {self.path}: {_RESTORE}")
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path} has no readable weight_map ({_line(e)}): {_RESTORE}") from e
    if not isinstance(found, dict) or not found or not all(isinstance(file, str) for file in found.values()):
        raise CheckpointError(f"{path}: weight_map does not map tensor names to file names: {_RESTORE}")
    for file in found.values():
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise CheckpointError(f"{path} names {file!r}, which is no safetensors file of its own folder: {_RESTORE}")
    return found


def _files_of(path: Path, index: Mapping[str, str] | None) -> list[Path]:
    if index is not None:
        files = [path / name for name in sorted(set(index.values()))]
    elif not path.is_dir():
        files = [path]
    elif (path / SINGLE_NAME).exists():
        files = [path / SINGLE_NAME]
    else:
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files) or "none"
            raise CheckpointError(
                f"{path} has no {SINGLE_NAME} and no {INDEX_NAME} (safetensors files there: {found}): {_RESTORE}"
            )
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{', '.join(missing)} is missing in {files[0].parent}: {_RESTORE}")
    return files


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({_line(e)}): {_RESTORE}") from e


def _starts(path: Path) -> dict[str, int]:
    """Where in a file, whose header the library has checked, every tensor's values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {n: 8 + length + entry["data_offsets"][0] for n, entry in header.items() if n != "__metadata__"}


def _compare_with_index(path: Path, index: Mapping[str, str], places: Mapping[str, Path]) -> None:
    wrong = [name for name in index if name not in places or places[name].name != index[name]]
    unlisted = [name for name in places if name not in index]
    if wrong:
        shard = Counter(index[name] for name in wrong).most_common(1)[0][0]
        raise CheckpointError(f"{path} lists {', '.join(wrong)}, which is not in {shard}: {_RESTORE}")
    if unlisted:
        raise CheckpointError(f"{path} does not list {', '.join(unlisted)}, which its shards hold: {_RESTORE}")
