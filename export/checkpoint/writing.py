"""Writing tensors as safetensors without holding them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

READ_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "U8": "uint8"}
_WRITE_CODES = {name: code for code, name in READ_CODES.items()} | {
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
