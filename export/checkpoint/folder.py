"""A STORM checkpoint on disk, in the layout VILA-style training leaves.

config.json          StormConfig
vision_tower/        SigLIP, Hugging Face names, with or without the `vision_model.` prefix
temporal.safetensors projector and Mamba layers, mamba_ssm names
llm/                 Qwen2, Hugging Face names; tokenizer.json and chat template
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.shapes import Shapes, language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.runtime.bundle.manifest import file_sha256
from storm_edge.runtime.config.schema import StormConfig, read_config
from storm_edge.runtime.errors import CheckpointError

VISION_PREFIX = "vision_model."
# SigLIP's parts that STORM does not run: published towers hold them, ours need not.
NOT_RUN = ("post_layernorm.*", "head.*", "encoder.layers.*", "embeddings.position_ids")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint whose every tensor has the name and shape its configuration asks for."""

    root: Path
    config: StormConfig
    vision: Weights
    temporal: Weights
    llm: Weights

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read the configuration and the tensors' headers; raises CheckpointError naming all that is wrong."""
        root = Path(path)
        if not root.is_dir():
            raise CheckpointError(
                f"{root} is no folder: `storm init storm-mini -o {root}` makes an example checkpoint."
            )
        config = read_config(root / "config.json")
        _check_part_config(root / "vision_tower" / "config.json", config.vision.model_dump(exclude={"feature_layer"}))
        _check_part_config(root / "llm" / "config.json", config.llm.model_dump())
        vision = Weights.open(root / "vision_tower")
        temporal = Weights.open(root / "temporal.safetensors")
        llm = Weights.open(root / "llm")
        check_tensors(_unprefixed(vision.shapes), vision_shapes(config), f"{root / 'vision_tower'}", NOT_RUN)
        check_tensors(temporal.shapes, temporal_shapes(config), f"{root / 'temporal.safetensors'}")
        tied = ("lm_head.weight",) if config.llm.tie_word_embeddings else ()
        check_tensors(llm.shapes, language_shapes(config.llm), f"{root / 'llm'}", tied)
        return cls(root, config, vision, temporal, llm)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return self.vision.nbytes + self.temporal.nbytes + self.llm.nbytes

    def sha256(self) -> str:
        """Hash of the configuration, every weight file and the tokenizer, names included."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self.root.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{file_sha256(path)}\n".encode())
        return digest.hexdigest()


def _unprefixed(shapes: Shapes) -> Shapes:
    return {name.removeprefix(VISION_PREFIX): shape for name, shape in shapes.items()}


def _check_part_config(path: Path, ours: Mapping[str, Any]) -> None:
    """A part's own Hugging Face config.json, where there is one, must not contradict the STORM configuration."""
    if not path.is_file():
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON ({e}): restore it from the checkpoint's source.") from e
    if not isinstance(theirs, dict):
        raise CheckpointError(f"{path} holds no JSON object: restore it from the checkpoint's source.")
    differing = [
        f"{k} is {theirs[k]!r} there and {v!r} in the checkpoint's config.json"
        for k, v in ours.items()
        if k in theirs and theirs[k] != v
    ]
    if differing:
        raise CheckpointError(
            f"{path} contradicts the STORM configuration: {'; '.join(differing)}. Correct one of them."
        )
