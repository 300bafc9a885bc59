"""config.json of `LlavaOnevisionForConditionalGeneration`, and how its video processor prepares frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.regular import read_json
from storm_edge.export.families.family import Found
from storm_edge.export.families.sections import language, require, section, siglip
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import CheckpointError

# OpenAI's CLIP: what LlavaOnevisionVideoProcessor takes where no file says otherwise.
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_BICUBIC = 3
_PROCESSORS = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")


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
        "vision": vision | normalisation(root, vision["image_size"]) | {"feature_layer": _layer(found, where)},
        "temporal": {"num_layers": 0, "downsample": 1, "projector": "mlp2x_gelu"},
        "reduction": {"temporal_pool": 1, "spatial_pool": 2, "spatial_mode": "bilinear", "image_newline": "end"},
        "llm": llm,
    }
    return parse_config(data, str(where))


def normalisation(root: Path, side: int) -> dict[str, Any]:
    """Mean and standard deviation of the video processor beside the model; raises CheckpointError for another one.

    Frames are resized to the tower's size and scaled to 0..1 before, which it must say too, or nothing.
    """
    found, path = _processor(root)
    plain = {
        "do_resize": (True,),
        "do_rescale": (True,),
        "do_normalize": (True,),
        "do_center_crop": (None, False),
        "do_pad": (None, True, False),  # of images alone
        "resample": (_BICUBIC,),
    }
    require(found, path, plain)
    size = found.get("size")
    if isinstance(size, Mapping) and any(size.get(of) not in (side, None) for of in ("height", "width")):
        raise CheckpointError(f"{path} resizes frames to {dict(size)}, but the vision tower takes {side} x {side}.")
    factor = found.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(255 * factor - 1) > 1e-3:
        raise CheckpointError(f"{path} has rescale_factor {found['rescale_factor']!r}, only 1/255 runs here.")
    return {key: found.get(key) or default for key, default in _CLIP.items()}


def _processor(root: Path) -> tuple[Mapping[str, Any], Path]:
    """What the first of the files that a video processor is read from says."""
    for name in _PROCESSORS:
        path = root / name
        if path.exists():
            found = read_json(path, "restore it from the checkpoint's source")
            if name != "processor_config.json":
                return found, path
            if isinstance(inner := found.get("video_processor"), Mapping):
                return inner, path
    return {}, root / _PROCESSORS[0]


def _layer(found: Found, where: Path) -> int:
    layer = found.get("vision_feature_layer", -1)
    if not isinstance(layer, int):
        raise CheckpointError(f"{where} joins several hidden states of the vision tower: only one runs here.")
    return layer
