"""The models that reports measure."""

from __future__ import annotations

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig


def wide_slice() -> StormConfig:
    """storm-7b's widths with few layers: 2 vision blocks, 1 temporal layer, 2 decoder layers, a vocabulary of 4096."""
    full = preset("storm-7b")
    return full.model_copy(
        update={
            "dtype": "float32",
            "vision": full.vision.model_copy(update={"num_hidden_layers": 3}),
            "temporal": full.temporal.model_copy(update={"num_layers": 1}),
            "llm": full.llm.model_copy(update={"num_hidden_layers": 2, "vocab_size": 4096}),
        }
    )


MODELS = {"storm-mini": preset("storm-mini"), "a slice with storm-7b's widths": wide_slice()}


def edge() -> StormConfig:
    """What fits a small machine: SigLIP-base at 224 with 49 visual tokens a frame, Qwen2-0.5B, 2 temporal layers."""
    full = preset("storm-7b")
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    llm = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    return full.model_copy(
        update={
            "dtype": "float32",
            "vision": full.vision.model_copy(update=vision | {"image_size": 224, "patch_size": 16}),
            "llm": full.llm.model_copy(
                update=llm | {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}
            ),
        }
    )


def quarter_edge() -> StormConfig:
    """The same widths at a quarter of the depth, with a quarter of the vocabulary and one temporal layer."""
    config = edge()
    return config.model_copy(
        update={
            "vision": config.vision.model_copy(update={"num_hidden_layers": 4}),  # 3 run
            "temporal": config.temporal.model_copy(update={"num_layers": 1}),
            "llm": config.llm.model_copy(update={"num_hidden_layers": 6, "vocab_size": 151936 // 4}),
        }
    )
