"""From a folder to the family that it is of, and the checkpoint opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.folder import Checkpoint, check_folder
from storm_edge.export.checkpoint.regular import read_json
from storm_edge.export.families.bimba.family import BIMBA
from storm_edge.export.families.family import Family
from storm_edge.export.families.llava_onevision.family import LLAVA_ONEVISION
from storm_edge.export.families.nvila.family import NVILA
from storm_edge.export.families.storm.family import STORM
from storm_edge.runtime.errors import CheckpointError

FAMILIES = (STORM, LLAVA_ONEVISION, BIMBA, NVILA)


def family_of(root: Path) -> tuple[Family, dict[str, Any]]:
    """The family of a checkpoint and its decoded config.json; raises CheckpointError naming those that there are."""
    check_folder(root)
    path = root / "config.json"
    if (root / "adapter_config.json").exists():
        raise CheckpointError(
            f"{root} is a LoRA adapter, not a whole model: merge it into its base model and save that as safetensors"
            " (peft: model.merge_and_unload(), then save_pretrained)."
        )
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: a checkpoint has a config.json; `storm init` makes an example.")
    found = read_json(path, "restore it from the checkpoint's source")
    for family in FAMILIES:
        if family.recognises(found):
            return family, found
    known = ", ".join(family.words for family in FAMILIES)
    kind = f"{found.get('model_type')!r}"[:60]
    raise CheckpointError(
        f"{path}: model_type {kind} is of no family that storm-edge knows ({known}): see docs/families.md."
    )


def open_checkpoint(path: str | Path) -> tuple[Family, Checkpoint]:
    """A checkpoint of any family, opened, and its family; raises CheckpointError naming all that is wrong."""
    root = Path(path)
    family, found = family_of(root)
    return family, family.open(root, found)
