"""Which safetensors files a path of a checkpoint means: one file, or the shards that an index lists."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from storm_edge.export.checkpoint.regular import check_regular
from storm_edge.runtime.errors import CheckpointError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
RESTORE = "copy the checkpoint again from its source."


def one_line(error: Exception) -> str:
    """An error's text without its line ends."""
    return " ".join(str(error).split())


def read_index(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, from the index in `folder`; raises CheckpointError."""
    path = folder / INDEX_NAME
    check_regular(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as e:
        raise CheckpointError(f"{path} has no readable weight_map ({one_line(e)}): {RESTORE}") from e
    if not isinstance(found, dict) or not found or not all(isinstance(file, str) for file in found.values()):
        raise CheckpointError(f"{path}: weight_map does not map tensor names to file names: {RESTORE}")
    for file in found.values():
        if not re.fullmatch(r"[\w.-]+\.safetensors", file):
            raise CheckpointError(f"{path} names {file!r}, which is no safetensors file of its own folder: {RESTORE}")
    return found


def files_of(path: Path, index: Mapping[str, str] | None) -> list[Path]:
    """The safetensors files that `path`, a file or a folder with its `index`, stands for; raises CheckpointError."""
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
                f"{path} has no {SINGLE_NAME} and no {INDEX_NAME} (safetensors files there: {found}): {RESTORE}"
            )
    for file in files:
        check_regular(file)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{', '.join(missing)} is missing in {files[0].parent}: {RESTORE}")
    return files


def open_file(path: Path) -> Any:
    """The library's handle of a file whose header it has checked; raises CheckpointError."""
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({one_line(e)}): {RESTORE}") from e


def starts_of(path: Path) -> dict[str, int]:
    """Where in a file, whose header the library has checked, every tensor's values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {n: 8 + length + entry["data_offsets"][0] for n, entry in header.items() if n != "__metadata__"}


def compare_with_index(path: Path, index: Mapping[str, str], places: Mapping[str, Path]) -> None:
    """Raise CheckpointError where the tensors' `places` are not those that the index says."""
    wrong = [name for name in index if name not in places or places[name].name != index[name]]
    unlisted = [name for name in places if name not in index]
    if wrong:
        shard = Counter(index[name] for name in wrong).most_common(1)[0][0]
        raise CheckpointError(f"{path} lists {', '.join(wrong)}, which is not in {shard}: {RESTORE}")
    if unlisted:
        raise CheckpointError(f"{path} does not list {', '.join(unlisted)}, which its shards hold: {RESTORE}")
