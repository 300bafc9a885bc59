"""Sections of other programs' configurations that are the same in several families."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.importers import plain_qwen2
from storm_edge.runtime.config.parts import LanguageConfig, VisionConfig
from storm_edge.runtime.errors import CheckpointError

# What transformers takes where a file, which lists what differs, says nothing.
_QWEN2 = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_SIGLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
# Towers that configurations name instead of describing them.
SIGLIP_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}
TOWERS = {
    "siglip-so400m-patch14-384": SIGLIP_SO400M | {"image_size": 384},
    "paligemma-siglip-so400m-patch14-448": SIGLIP_SO400M | {"image_size": 448},
}


def section(found: Mapping[str, Any], key: str, where: Path) -> Mapping[str, Any]:
    """A part of a configuration; raises CheckpointError where it is missing or no object."""
    part = found.get(key)
    if not isinstance(part, Mapping):
        raise CheckpointError(f"{where} has no {key}: restore it from the checkpoint's source.")
    return part


def language(found: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The fields of our language section that transformers' Qwen2 configuration gives; raises CheckpointError."""
    return _filled(_QWEN2, plain_qwen2(found, where), LanguageConfig)


def siglip(found: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The fields of our vision section that transformers' SigLIP configuration gives; raises CheckpointError."""
    if found.get("model_type") not in ("siglip_vision_model", "siglip"):
        raise CheckpointError(f"{where} has a vision tower {found.get('model_type')!r}: only SigLIP runs here.")
    return _filled(_SIGLIP, found, VisionConfig)


def named_tower(name: Any, where: Path) -> dict[str, Any]:
    """The vision section of a tower that a configuration names; raises CheckpointError for one that is not known."""
    known = TOWERS.get(str(name).rstrip("/").rpartition("/")[2])
    if known is None:
        raise CheckpointError(f"{where} names the vision tower {name!r}: only {', '.join(TOWERS)} run here.")
    return dict(known)


def require(found: Mapping[str, Any], where: Path, allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise CheckpointError naming every field that has a value beside those allowed; the first stands for none."""
    wrong = [
        f"{key} is {found[key]!r}"[:120] for key, values in allowed.items() if found.get(key, values[0]) not in values
    ]
    if wrong:
        raise CheckpointError(f"{where}: {', '.join(wrong)}, a form of this family that storm-edge does not run.")


def _filled(
    defaults: Mapping[str, Any], found: Mapping[str, Any], kind: type[LanguageConfig | VisionConfig]
) -> dict[str, Any]:
    known = {key: value for key, value in found.items() if key in kind.model_fields and value is not None}
    return {**defaults, **known}
