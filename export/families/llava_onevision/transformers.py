"""config.json of `LlavaOnevisionForConditionalGeneration`, and how its video processor prepares frames."""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.families.family import Found
from storm_edge.export.families.frames import normalisation
from storm_edge.export.families.sections import language, require, section, siglip
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import CheckpointError

# OpenAI's CLIP: what LlavaOnevisionVideoProcessor takes where no file says otherwise.
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def config_of_transformers(root: Path, found: Found, dtype: str) -> StormConfig:
    """The parts of a checkpoint in transformers' layout; raises CheckpointError."""
    where = root / "config.json"
    require(
        found,
        where,
        {
            "projector_hidden_act": ("gelu",),
            "vision_feature_select_strategy": ("full",),
            "multimodal_projector_bias": (True,),
        },
    )
    vision = siglip(section(found, "vision_config", where), where)
    text = section(found, "text_config", where)
    llm = language(text, where)
    llm["tie_word_embeddings"] = bool(found.get("tie_word_embeddings") or text.get("tie_word_embeddings"))
    data = {
        "dtype": dtype,
        "vision": vision | normalisation(root, vision["image_size"], _CLIP) | {"feature_layer": _layer(found, where)},
        "temporal": {"num_layers": 0, "downsample": 1, "projector": "mlp2x_gelu"},
        "reduction": {"temporal_pool": 1, "spatial_pool": 2, "spatial_mode": "bilinear", "image_newline": "end"},
        "llm": llm,
    }
    return parse_config(data, str(where))


def _layer(found: Found, where: Path) -> int:
    layer = found.get("vision_feature_layer", -1)
    if not isinstance(layer, int):
        raise CheckpointError(f"{where} joins several hidden states of the vision tower: only one runs here.")
    return layer
