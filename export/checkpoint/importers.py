"""Parts of a checkpoint from where they were trained: Hugging Face's SigLIP, Qwen2 and Qwen3, mamba_ssm state dicts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.folder import NOT_RUN, VISION_PREFIX
from storm_edge.export.checkpoint.head import check_tied_head, tied_head
from storm_edge.export.checkpoint.regular import check_regular, read_json
from storm_edge.export.checkpoint.shapes import language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.weights import LazyTensor, Weights
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import CheckpointError

Tensors = Mapping[str, LazyTensor]
_ADVICE = "give a Hugging Face model folder"


@dataclass(frozen=True)
class Imported:
    """Tensors taken from elsewhere by their names in a STORM checkpoint; None is a part that was not."""

    vision: Tensors | None = None
    temporal: Tensors | None = None
    language: Tensors | None = None


def import_vision(folder: Path, config: StormConfig) -> tuple[StormConfig, Tensors]:
    """A SigLIP folder (whole model or vision tower): `config` with its sizes, and the tower's tensors."""
    found = read_json(folder / "config.json", _ADVICE)
    found = found.get("vision_config", found)
    config = _with_section(config, "vision", found, folder)
    weights = Weights.open(folder)
    names = {n.removeprefix(VISION_PREFIX): n for n in weights.names if not n.startswith(("text_model.", "logit_"))}
    shapes = {name: weights.shape(stored) for name, stored in names.items()}
    check_tensors(shapes, vision_shapes(config), str(folder), NOT_RUN)
    return config, {VISION_PREFIX + name: weights.lazy(names[name]) for name in vision_shapes(config)}


def import_language(folder: Path, config: StormConfig) -> tuple[StormConfig, Tensors]:
    """A Qwen2 or Qwen3 folder: `config` with its sizes, and the language model's tensors."""
    found = read_json(folder / "config.json", _ADVICE)
    config = _with_section(config, "llm", plain_qwen2(found, folder), folder)
    weights = Weights.open(folder)
    check_tensors(weights.shapes, language_shapes(config.llm), str(folder), tied_head(config.llm))
    check_tied_head(config.llm, weights)
    return config, {name: weights.lazy(name) for name in language_shapes(config.llm)}


def plain_qwen2(found: Mapping[str, Any], where: Path) -> Mapping[str, Any]:
    """What a configuration of transformers says of a Qwen2, Qwen2.5 or dense Qwen3, in the fields of LanguageConfig.

    Raises CheckpointError for another model.
    """
    kind = found.get("model_type")
    if kind not in ("qwen2", "qwen3"):
        raise CheckpointError(f"{where} holds a model of type {kind!r}: give a Qwen2 or a dense Qwen3 folder.")
    if kind == "qwen3" and found.get("attention_bias"):
        raise CheckpointError(f"{where} has attention_bias, which no published Qwen3 has: give one without.")
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default" or found.get("use_sliding_window"):
        raise CheckpointError(f"{where} has scaled rotary embeddings or a sliding window: give a plain Qwen2 or Qwen3.")
    # What transformers takes for a Qwen3 that says nothing; a Qwen2's heads have no width of their own.
    own = {"head_width": found.get("head_dim") or 128} if kind == "qwen3" else {}
    return {"rope_theta": rope.get("rope_theta"), **found, "architecture": kind, **own}


def import_temporal(file: Path, config: StormConfig) -> Tensors:
    """Mamba layers from a state dict with mamba_ssm's names (safetensors, .pt, .bin), any prefix before `layers.`.

    A projector in it is taken as well; without one the projector is left to be initialised.
    """
    check_regular(file)
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist: give a safetensors or PyTorch state dict file.")
    if file.suffix == ".safetensors":
        weights = Weights.open(file)
        tensors: Tensors = {name: weights.lazy(name) for name in weights.names}
    else:
        from storm_edge.export.checkpoint.state_dict import read_state_dict  # torch, seconds to import

        tensors = read_state_dict(file)
    part = re.compile(r"(?:.*\.)?((?:layers\.\d+|projector)\..*)")
    renamed = {match[1] if (match := part.fullmatch(name)) else name: tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise CheckpointError(f"{file} holds several models whose layers have equal names: save only one of them.")
    expected = temporal_shapes(config)
    if not any(name.startswith("projector.") for name in renamed):
        expected = {name: shape for name, shape in expected.items() if not name.startswith("projector.")}
    check_tensors({name: tensor.shape for name, tensor in renamed.items()}, expected, str(file))
    return {name: renamed[name] for name in expected}


def _with_section(config: StormConfig, section: str, found: Mapping[str, Any], folder: Path) -> StormConfig:
    data = config.model_dump()
    data[section] |= {key: value for key, value in found.items() if key in data[section] and value is not None}
    return parse_config(data, str(folder / "config.json"))
