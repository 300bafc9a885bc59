"""What a family is to those who open checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.folder import Checkpoint

Found = Mapping[str, Any]  # a decoded config.json


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint. `words` name it to people.

    `recognises` tells by config.json whether a checkpoint is of this kind; `open` maps it, and raises CheckpointError
    for one that it cannot run.
    """

    name: str
    words: str
    recognises: Callable[[Found], bool]
    open: Callable[[Path, Found], Checkpoint]
