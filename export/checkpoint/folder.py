"""An opened checkpoint, whatever its family; and STORM's own, in the layout VILA-style training leaves.

config.json          StormConfig
vision_tower/        SigLIP, Hugging Face names, with or without the `vision_model.` prefix
temporal.safetensors projector and Mamba layers, mamba_ssm names
llm/                 Qwen2, Hugging Face names; tokenizer.json and chat template
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.head import tied_head
from storm_edge.export.checkpoint.regular import check_regular, read_json
from storm_edge.export.checkpoint.shapes import (
    TensorShapes,
    is_scan_constant,
    language_shapes,
    temporal_shapes,
    vision_shapes,
)
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.runtime.bundle.manifest import file_sha256
from storm_edge.runtime.config.schema import DType, StormConfig, read_config
from storm_edge.runtime.errors import CheckpointError

VISION_PREFIX = "vision_model."
# SigLIP's parts that STORM does not run: published towers hold them, ours need not.
NOT_RUN = ("post_layernorm.*", "head.*", "encoder.layers.*", "embeddings.position_ids")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint whose every tensor has the name and shape its configuration asks for.

    Tensors go by STORM's names whatever they are called in the files. `folders` hold all that belongs to it. `joined`
    says that in its prompts a video stands right before its text, without a line end between.
    """

    root: Path
    config: StormConfig
    vision: Weights
    temporal: Weights
    llm: Weights
    tokenizer: Path
    folders: tuple[Path, ...]
    joined: bool = False

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read STORM's configuration and the tensors' headers; raises CheckpointError naming all that is wrong.

        See `storm_edge.export.families` for checkpoints of any family.
        """
        root = Path(path)
        check_folder(root)
        config = read_config(root / "config.json")
        _check_part_config(root / "vision_tower" / "config.json", config.vision.model_dump(exclude={"feature_layer"}))
        _check_part_config(root / "llm" / "config.json", config.llm.model_dump())
        vision = Weights.open(root / "vision_tower")
        check_regular(root / "temporal.safetensors")
        temporal = Weights.open(root / "temporal.safetensors")
        llm = Weights.open(root / "llm")
        folders = (root, root / "vision_tower", root / "llm")
        return cls(root, config, vision, temporal, llm, root / "llm", folders).checked()

    def checked(self) -> Checkpoint:
        """The same; raises CheckpointError where its tensors are not those of its configuration."""
        config = self.config
        check_tensors(_unprefixed(self.vision.shapes), vision_shapes(config), f"{self.vision.path}", NOT_RUN)
        check_tensors(self.temporal.shapes, temporal_shapes(config), f"{self.temporal.path}")
        check_tensors(self.llm.shapes, language_shapes(config.llm), f"{self.llm.path}", tied_head(config.llm))
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return self.vision.nbytes + self.temporal.nbytes + self.llm.nbytes

    def is_rounded_by(self, dtype: DType) -> bool:
        """Whether an export as `dtype` rounds any weight; what the scan reads as fp32 it never does."""
        if dtype == "float32":
            return False
        vision = [name for name in self.vision.names if _unprefixed_name(name) in vision_shapes(self.config)]
        temporal = [name for name in self.temporal.names if not is_scan_constant(name)]
        parts = ((self.vision, vision), (self.temporal, temporal), (self.llm, language_shapes(self.config.llm)))
        return any(weights.dtype(name) != dtype for weights, names in parts for name in names)

    def sha256(self) -> str:
        """Hash of the configuration, every weight file and the tokenizer, names included."""
        digest = hashlib.sha256()
        # Not a walk of the whole tree, which would pass by a part that is a link to another folder.
        for path in sorted(p for folder in self.folders for p in folder.iterdir() if p.is_file()):
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{file_sha256(path)}\n".encode())
        return digest.hexdigest()


def check_folder(root: Path) -> None:
    """Raise CheckpointError where a checkpoint is no folder."""
    if not root.is_dir():
        raise CheckpointError(f"{root} is no folder: `storm init storm-mini -o {root}` makes an example checkpoint.")


def _unprefixed(shapes: TensorShapes) -> TensorShapes:
    return {_unprefixed_name(name): shape for name, shape in shapes.items()}


def _unprefixed_name(name: str) -> str:
    return name.removeprefix(VISION_PREFIX)


def _check_part_config(path: Path, ours: Mapping[str, Any]) -> None:
    """A part's own Hugging Face config.json, where there is one, must not contradict the STORM configuration."""
    if not path.exists():
        return
    theirs = read_json(path, "restore it from the checkpoint's source")
    differing = [
        f"{k} is {theirs[k]!r} there and {v!r} in the checkpoint's config.json"
        for k, v in ours.items()
        if k in theirs and theirs[k] != v
    ]
    if differing:
        raise CheckpointError(
            f"{path} contradicts the STORM configuration: {'; '.join(differing)}. Correct one of them."
        )
