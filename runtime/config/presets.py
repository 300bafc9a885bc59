"""Named model sizes for `storm init` and `storm plan`."""

from __future__ import annotations

from storm_edge.runtime.config.schema import (
    LanguageConfig,
    ReductionConfig,
    StormConfig,
    TemporalConfig,
    VisionConfig,
)
from storm_edge.runtime.errors import UsageError

# SigLIP so400m at 384, every block but the last: 27 patches a side.
_LLAVA_VISION = VisionConfig(image_size=384)
_LLAVA_PROJECTOR = TemporalConfig(num_layers=0, downsample=1, projector="mlp2x_gelu")
_ONE_VISION = ReductionConfig(temporal_pool=1, spatial_pool=2, spatial_mode="bilinear", image_newline="end")
_QWEN2_05B = LanguageConfig(
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=24,
    num_attention_heads=14,
    num_key_value_heads=2,
    vocab_size=152000,
    tie_word_embeddings=True,
)
PRESETS: dict[str, StormConfig] = {
    # The paper's model: SigLIP so400m at 448, Qwen2-7B (the text model of Qwen2-VL-7B).
    "storm-7b": StormConfig(),
    # The paper's smaller language model with SigLIP at 384; 27 patches a side, padded to 28 by the downsampling.
    "storm-1.5b": StormConfig(
        vision=VisionConfig(image_size=384),
        llm=LanguageConfig(
            hidden_size=1536,
            intermediate_size=8960,
            num_attention_heads=12,
            num_key_value_heads=2,
            vocab_size=151936,
            tie_word_embeddings=True,
        ),
    ),
    # Small enough to train on a CPU: 64 x 64 frames of 16 visual tokens.
    "storm-mini": StormConfig(
        dtype="float32",
        vision=VisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=4,
            image_size=64,
            patch_size=8,
        ),
        temporal=TemporalConfig(num_layers=2),
        llm=LanguageConfig(
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=4096,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    # Published models of other families, in these parts.
    "llava-onevision-0.5b": StormConfig(
        vision=_LLAVA_VISION, temporal=_LLAVA_PROJECTOR, reduction=_ONE_VISION, llm=_QWEN2_05B
    ),
    "llava-onevision-7b": StormConfig(
        vision=_LLAVA_VISION,
        temporal=_LLAVA_PROJECTOR,
        reduction=_ONE_VISION,
        llm=LanguageConfig(vocab_size=152000),
    ),
    "bimba-7b": StormConfig(
        vision=_LLAVA_VISION,
        temporal=TemporalConfig(
            num_layers=1, downsample=1, projector="mlp2x_gelu", norm="rms", layer_norm_eps=1e-6, queries=True
        ),
        reduction=ReductionConfig(temporal_pool=1, spatial_pool=2, spatial_mode="bilinear", image_newline="row"),
    ),
    "nvila-8b-video": StormConfig(
        temporal=TemporalConfig(num_layers=0, projector="mlp2x_gelu", projector_norm=True),
        reduction=ReductionConfig(temporal_pool=8, newline_token=True),
    ),
    "nvila-lite-8b": StormConfig(
        temporal=TemporalConfig(num_layers=0, downsample=3, projector="mlp3x_gelu", projector_norm=True),
        reduction=ReductionConfig(temporal_pool=1, newline_token=True),
    ),
}


def preset(name: str) -> StormConfig:
    """The configuration called `name`; raises UsageError naming those that exist."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]
