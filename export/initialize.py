"""`storm init`: a checkpoint with random weights, or with parts imported from elsewhere.

Random weights are drawn per tensor from the seed and the tensor's name, so that they depend on neither order nor shard.
They are scaled to let a verification see: every linear layer keeps the variance of its input, and each direction of a
temporal layer moves that layer's output by at least a tenth, so that a wrong direction cannot hide.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from storm_edge.export.checkpoint.importers import Imported
from storm_edge.export.checkpoint.shapes import (
    TensorShapes,
    is_scan_constant,
    language_shapes,
    temporal_shapes,
    vision_shapes,
)
from storm_edge.export.checkpoint.tokenizer import copy_tokenizer, write_byte_tokenizer
from storm_edge.export.checkpoint.weights import NUMPY_DTYPES, LazyTensor, convert, write_safetensors
from storm_edge.runtime.bundle.publish import staging
from storm_edge.runtime.config.schema import DType, StormConfig
from storm_edge.runtime.errors import UsageError

LEAST_MOVE = 0.2  # of each direction, relative to the layer's input; twice the tenth that is promised
Float32 = NDArray[np.float32]


def initialize(
    config: StormConfig,
    output: Path,
    *,
    seed: int = 0,
    imported: Imported | None = None,
    tokenizer: Path | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Write a checkpoint of `config` to the folder `output`; parts that were imported are taken as they are.

    Raises UsageError where `output` exists and not `force`, CheckpointError for damaged imports.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists already: choose another folder or add --force to replace it.")
    imported = imported or Imported()
    with staging(output) as folder:
        progress("vision tower and temporal encoder")
        vision = imported.vision or _random(vision_shapes(config), seed)
        temporal = dict(imported.temporal or {})
        drawn = {n: s for n, s in temporal_shapes(config).items() if n not in temporal}
        temporal |= _random(drawn, seed)
        if imported.temporal is None and config.temporal.num_layers:
            temporal |= _visible_directions(config, vision, temporal)
        (folder / "vision_tower").mkdir()
        write_safetensors(folder / "vision_tower" / "model.safetensors", _typed(vision, config.dtype))
        write_safetensors(folder / "temporal.safetensors", _typed(temporal, config.dtype))
        progress("language model")
        (folder / "llm").mkdir()
        language = imported.language or _random(language_shapes(config.llm), seed)
        write_safetensors(folder / "llm" / "model.safetensors", _typed(language, config.dtype))
        if tokenizer is not None:
            copy_tokenizer(tokenizer, folder / "llm", config.llm.vocab_size)
        else:
            write_byte_tokenizer(folder / "llm", config.llm.vocab_size)
        (folder / "config.json").write_text(json.dumps(config.model_dump(), indent=2) + "\n", encoding="utf-8")


def _random(shapes: TensorShapes, seed: int) -> dict[str, LazyTensor]:
    return {n: LazyTensor(np.dtype(np.float32), s, _drawer(n, s, seed)) for n, s in shapes.items()}


def _drawer(name: str, shape: tuple[int, ...], seed: int) -> Callable[[], Float32]:
    return lambda: draw(name, shape, seed)


def draw(name: str, shape: tuple[int, ...], seed: int) -> Float32:
    """Random fp32 values for the tensor `name`; Mamba's own parameters as in arXiv 2312.00752, section 3.6."""
    rng = np.random.Generator(np.random.PCG64([seed, crc32(name.encode())]))
    if name.endswith("_log"):
        return np.broadcast_to(np.log(np.arange(1, shape[1] + 1, dtype=np.float32)), shape).copy()
    if ".D" in name[-4:]:
        return np.ones(shape, dtype=np.float32)
    if ".dt_proj" in name and name.endswith(".bias"):
        # The step size after softplus is log-uniform in [1e-3, 1e-1].
        step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), shape))
        return np.log(np.expm1(step)).astype(np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    module = name.rpartition(".")[0]
    if "norm" in module.rpartition(".")[2]:
        return 0.1 * values + (1.0 if name.endswith(".weight") else 0.0)
    if name.endswith(".bias"):
        return 0.02 * values
    if name.endswith("position_embedding.weight"):
        return 0.2 * values
    if name.endswith("embed_tokens.weight"):
        return 0.02 * values  # small beside what the layers add, or a tied model would only repeat its last token
    return values / np.float32(np.sqrt(np.prod(shape[1:])))


def _visible_directions(
    config: StormConfig, vision: Mapping[str, LazyTensor], temporal: Mapping[str, LazyTensor]
) -> dict[str, LazyTensor]:
    """New out_proj weights under which every direction of every layer moves its input by LEAST_MOVE."""
    from storm_edge.export.network.visibility import direction_moves  # torch, seconds to import

    scaled: dict[str, LazyTensor] = {}
    moves = direction_moves(config, vision, temporal, LEAST_MOVE)
    for i, factor in enumerate(moves):
        name = f"layers.{i}.mixer.out_proj.weight"
        values = temporal[name].read() * np.float32(factor)
        scaled[name] = LazyTensor(values.dtype, values.shape, lambda values=values: values)  # type: ignore[misc]
    return scaled


def _typed(tensors: Mapping[str, LazyTensor], dtype: DType) -> dict[str, LazyTensor]:
    return {name: _converted(name, tensors[name], dtype) for name in sorted(tensors)}


def _converted(name: str, tensor: LazyTensor, dtype: DType) -> LazyTensor:
    if tensor.dtype == NUMPY_DTYPES[dtype] or is_scan_constant(name):
        return tensor
    return LazyTensor(NUMPY_DTYPES[dtype], tensor.shape, lambda: convert(tensor.read(), dtype, name))
