"""Checkpoint -> Qwen2 or Qwen3 in fp32: whole, or a layer at a time."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.network.load import read_tensor
from storm_edge.runtime.config.schema import DType, LanguageConfig

LanguageModel: TypeAlias = Qwen2ForCausalLM | Qwen3ForCausalLM


def transformers_config(llm: LanguageConfig) -> Qwen2Config | Qwen3Config:
    """The transformers configuration of the language model."""
    fields = llm.model_dump(exclude={"rope_theta", "architecture", "head_width"})
    fields |= {"rope_parameters": {"rope_type": "default", "rope_theta": llm.rope_theta}, "use_sliding_window": False}
    if llm.head_norms:
        return Qwen3Config(**fields, head_dim=llm.head_dim, attention_bias=False)
    return Qwen2Config(**fields)


def random_language_model(config: Qwen2Config | Qwen3Config) -> LanguageModel:
    """The model of a configuration, its values as transformers draws them."""
    kind = Qwen3ForCausalLM if isinstance(config, Qwen3Config) else Qwen2ForCausalLM
    model: LanguageModel = kind(config)
    return model


def load_language_state(checkpoint: Checkpoint, dtype: DType = "float32") -> dict[str, Tensor]:
    """The language model's tensors by their Hugging Face names, in fp32, their values rounded to `dtype`."""
    return {name: read_tensor(checkpoint.llm, name, dtype) for name in language_shapes(checkpoint.config.llm)}


def load_language_model(checkpoint: Checkpoint, dtype: DType = "float32") -> LanguageModel:
    """The model from the checkpoint, in fp32, the values rounded to `dtype`."""
    llm = checkpoint.config.llm
    model = random_language_model(transformers_config(llm))
    model.load_state_dict(load_language_state(checkpoint, dtype), strict=not llm.tie_word_embeddings)
    return model.eval().requires_grad_(False)


def stream_language_model(checkpoint: Checkpoint, dtype: DType = "float32") -> LanguageModel:
    """The model whose layers, embedding and head are in memory only while they run, read from the checkpoint each time.

    Computes what `load_language_model`'s does with the memory of its largest part, but every token reads all weights.
    """
    config = transformers_config(checkpoint.config.llm)
    with torch.device("meta"):
        model = random_language_model(config).eval().requires_grad_(False)
    rotary = Qwen3RotaryEmbedding if isinstance(config, Qwen3Config) else Qwen2RotaryEmbedding
    model.model.rotary_emb = rotary(config)  # has no weights, and its frequencies are needed
    prefixes = {module: name for name, module in model.named_modules()}
    parts = [*model.model.layers, model.model.embed_tokens, model.model.norm, model.lm_head]
    for part in parts:
        tied = part is model.lm_head and checkpoint.config.llm.tie_word_embeddings
        _read_when_run(part, checkpoint.llm, "model.embed_tokens" if tied else prefixes[part], dtype)
    return model


def _read_when_run(part: nn.Module, weights: Weights, prefix: str, dtype: DType) -> None:
    """Let `part`, which has no values, have those under `prefix` while it runs."""
    names = list(part.state_dict())

    def read(part: nn.Module, _: object) -> None:
        state = {name: read_tensor(weights, f"{prefix}.{name}", dtype) for name in names}
        part.load_state_dict(state, assign=True)

    def forget(part: nn.Module, _: object, __: object) -> None:
        part.to("meta")

    part.register_forward_pre_hook(read)
    part.register_forward_hook(forget)
