"""Checkpoints are the user's own, so links are followed, as model caches consist of them; but only to plain files.

A FIFO would wait for a writer for ever, a device may never end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import CheckpointError

_MOST_JSON = 64 << 20  # bytes: the tokenizer.json of Qwen2 has 7 MB, the largest published ones 35 MB


def check_regular(path: Path) -> None:
    """Raise CheckpointError where `path` is there and leads to something that is no plain file."""
    if path.exists() and not path.is_file():
        raise CheckpointError(
            f"{path} is a folder, a pipe or a device where a file belongs: copy the checkpoint again from its source."
        )


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Decode a JSON object of a checkpoint; raises CheckpointError that ends in `advice`."""
    check_regular(path)
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"it has {path.stat().st_size} bytes, {_MOST_JSON} are the most")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON ({e}): {advice}.") from e
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object: {advice}.")
    return data
