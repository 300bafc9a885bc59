"""An NVILA checkpoint with random weights, as VILA's code saves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.shapes import TensorShapes, language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer
from storm_edge.export.checkpoint.weights import write_safetensors
from storm_edge.export.initialize import draw
from storm_edge.runtime.config.schema import LanguageConfig, ReductionConfig, StormConfig, TemporalConfig, VisionConfig

# Theirs by ours: what stands where in the projector's nn.Sequential.
PROJECTORS: dict[str, tuple[str, dict[str, int]]] = {
    "mlp_downsample": ("mlp2x_gelu", {"norm": 1, "linear": 2, "linear_2": 4}),
    "mlp_downsample_2x2_fix": ("mlp2x_gelu", {"norm": 1, "linear": 2, "linear_2": 4}),
    "mlp_downsample_3x3_fix": ("mlp3x_gelu", {"norm": 1, "linear": 2, "norm_2": 4, "linear_2": 5, "linear_3": 7}),
}
TOWER = VisionConfig(
    hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=70, patch_size=14
)
POOLED = '{"_target_": "llava.model.encoders.TSPVideoEncoder", "pool_sizes": [[4, 1, 1]]}'


def expected_config(projector: str, pool: int) -> StormConfig:
    """What the family should make of it: 5 x 5 patches, an odd side that space-to-depth pads."""
    kind, _ = PROJECTORS[projector]
    return StormConfig(
        dtype="float32",
        vision=TOWER,
        temporal=TemporalConfig(
            num_layers=0, downsample=3 if "3x3" in projector else 2, projector=kind, projector_norm=True
        ),
        reduction=ReductionConfig(temporal_pool=pool, newline_token=True),
        llm=LanguageConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=4096,
            max_position_embeddings=1024,
        ),
    )


def save_nvila(root: Path, projector: str = "mlp_downsample_2x2_fix", **config: Any) -> Path:
    """A checkpoint whose last block, norm and head of the tower are there, and not used."""
    ours = expected_config(projector, 1)
    whole = ours.model_copy(update={"vision": TOWER.model_copy(update={"feature_layer": -1})})
    unused: TensorShapes = {"post_layernorm.weight": (24,), "post_layernorm.bias": (24,), "head.probe": (1, 1, 24)}
    places = PROJECTORS[projector][1]
    parts: dict[str, tuple[dict[str, Any], TensorShapes, dict[str, str]]] = {
        "vision_tower": (
            {"model_type": "siglip_vision_model", **TOWER.model_dump(exclude={"image_mean", "image_std"})},
            vision_shapes(whole) | unused,
            {name: f"vision_model.{name}" for name in vision_shapes(whole) | unused},
        ),
        "mm_projector": (
            {"model_type": "v2l_projector", "mm_projector_type": projector},
            temporal_shapes(ours),
            {n: f"layers.{places[n.split('.')[1]]}.{n.split('.')[2]}" for n in temporal_shapes(ours)},
        ),
        "llm": (
            {"model_type": "qwen2", **ours.llm.model_dump()},
            language_shapes(ours.llm),
            {name: name for name in language_shapes(ours.llm)},
        ),
    }
    for part, (data, shapes, names) in parts.items():
        (root / part).mkdir(parents=True)
        (root / part / "config.json").write_text(json.dumps(data))
        tensors = {names[name]: draw(name, shape, 0) for name, shape in shapes.items()}
        write_safetensors(root / part / "model.safetensors", tensors)
    write_byte_tokenizer(root / "llm", 4096)
    found: dict[str, Any] = {part_key: {} for part_key in ("llm_cfg", "vision_tower_cfg", "mm_projector_cfg")}
    found |= {
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaModel"],
        "image_aspect_ratio": "resize",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "cls_patch",
        "video_encoder": POOLED,
        "num_time_tokens": 100,
        **config,
    }
    (root / "config.json").write_text(json.dumps(found))
    return root
