"""The family of STORM."""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.families.family import Family, Found


def _open(root: Path, _: Found) -> Checkpoint:
    return Checkpoint.open(root)


STORM = Family("storm", "STORM", lambda found: found.get("model_type", "storm") == "storm", _open)
