"""Checkpoint -> Qwen2 in fp32: whole, or a layer at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.network.load import read_tensor
from storm_edge.runtime.config.schema import DType, LanguageConfig


def qwen2_config(llm: LanguageConfig) -> Qwen2Config:
    """The transformers configuration of the language model."""
    fields = llm.model_dump(exclude={"rope_theta"})
    return Qwen2Config(
        **fields, rope_parameters={"rope_type": "default", "rope_theta": llm.rope_theta}, use_sliding_window=False
    )


def load_language_state(checkpoint: Checkpoint, dtype: DType = "float32") -> dict[str, Tensor]:
    """The language model's tensors by their Hugging Face names, in fp32, their values rounded to `dtype`."""
    return {name: read_tensor(checkpoint.llm, name, dtype) for name in language_shapes(checkpoint.config.llm)}


def load_language_model(checkpoint: Checkpoint, dtype: DType = "float32") -> Qwen2ForCausalLM:
    """Qwen2 from the checkpoint, in fp32, the values rounded to `dtype`."""
    llm = checkpoint.config.llm
    model = Qwen2ForCausalLM(qwen2_config(llm))
    model.load_state_dict(load_language_state(checkpoint, dtype), strict=not llm.tie_word_embeddings)
    return model.eval().requires_grad_(False)


def stream_language_model(checkpoint: Checkpoint, dtype: DType = "float32") -> Qwen2ForCausalLM:
    """Qwen2 whose layers, embedding and head are in memory only while they run, read from the checkpoint each time.

    Computes what `load_language_model`'s does with the memory of its largest part, but every token reads all weights.
    """
    config = qwen2_config(checkpoint.config.llm)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    model.model.rotary_emb = Qwen2RotaryEmbedding(config)  # has no weights, and its frequencies are needed
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
