"""What a folder holds of a checkpoint, for people: it may be incomplete, and needs no torch to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.folder import NOT_RUN, VISION_PREFIX, Checkpoint
from storm_edge.export.checkpoint.head import tied_head
from storm_edge.export.checkpoint.shapes import TensorShapes, language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.tokenizer import check_tokenizer
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.runtime.config.schema import StormConfig, read_config
from storm_edge.runtime.errors import CheckpointError


def summarize_storm(root: Path) -> dict[str, Any]:
    """Configuration, parameters and types of every part of a STORM checkpoint, and what is missing; ready for JSON.

    Reads headers only. Raises CheckpointError for a folder without a valid config.json.
    """
    config = read_config(root / "config.json")
    missing: list[str] = []
    parts: dict[str, tuple[Path, TensorShapes, tuple[str, ...]]] = {
        "vision": (root / "vision_tower", vision_shapes(config), NOT_RUN),
        "temporal": (root / "temporal.safetensors", temporal_shapes(config), ()),
        "language": (root / "llm", language_shapes(config.llm), tied_head(config.llm)),
    }
    described = {name: attempt(missing, partial(_part, *part)) for name, part in parts.items()}
    tokenizer = attempt(missing, lambda: tokenizer_ids(root / "llm", config))
    if not missing:
        attempt(missing, lambda: str(Checkpoint.open(root).root))  # what the parts' own config.json say
    return facts(config, described, tokenizer, missing)


def facts(config: StormConfig, parts: Mapping[str, str], tokenizer: str, missing: list[str]) -> dict[str, Any]:
    """What is shown of a checkpoint."""
    return {
        "config": config.model_dump(),
        "visual tokens per pooled frame": config.pooled_tokens_per_frame,
        "context": config.llm.max_position_embeddings,
        "parts": dict(parts),
        "tokenizer": tokenizer,
        "missing": missing or "nothing: storm export",
    }


def attempt(missing: list[str], describe: Callable[[], str]) -> str:
    """A part's description; where it cannot be used, what is wrong goes to `missing`."""
    try:
        return describe()
    except CheckpointError as e:
        missing.append(str(e))
        return "not usable"


def _part(path: Path, expected: TensorShapes, ignored: tuple[str, ...]) -> str:
    with Weights.open(path) as weights:
        stored = {name.removeprefix(VISION_PREFIX): name for name in weights.names}
        check_tensors({n: weights.shape(s) for n, s in stored.items()}, expected, str(path), ignored)
        return amount(weights.renamed({name: stored[name] for name in expected}))


def amount(weights: Weights) -> str:
    """Parameters and types of a part."""
    sizes: dict[str, int] = {}
    for name, shape in weights.shapes.items():
        kind = weights.dtype(name)
        sizes[kind] = sizes.get(kind, 0) + math.prod(shape)
    return f"{sum(sizes.values()):,} parameters, {_types(sizes)}"


def _types(sizes: Mapping[str, int]) -> str:
    if len(sizes) == 1:
        return next(iter(sizes))
    return ", ".join(f"{kind} {count:,}" for kind, count in sorted(sizes.items(), key=lambda item: -item[1]))


def tokenizer_ids(folder: Path, config: StormConfig) -> str:
    """How many of the vocabulary's ids a tokenizer has; raises CheckpointError where it cannot be used."""
    return f"{check_tokenizer(folder, config.llm.vocab_size).vocab_size:,} of {config.llm.vocab_size:,} ids"
