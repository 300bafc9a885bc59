"""config.json of the authors' `LlavaQwenForCausalLM`: Qwen2's fields and LLaVA's side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storm_edge.export.families.family import Found
from storm_edge.export.families.sections import language, named_tower, require
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import CheckpointError

_NEWLINES = {"one_token": "end", "grid": "row", "frame": "frame", "no_token": "none"}
_NO_LAYERS = {"num_layers": 0}
_POOLINGS = {"bilinear": "bilinear", "average": "cropped_mean"}


def config_of_authors(
    root: Path, found: Found, dtype: str, temporal: Mapping[str, Any] = _NO_LAYERS, compressor: str | None = None
) -> StormConfig:
    """The parts of a checkpoint in the authors' layout; raises CheckpointError.

    `temporal` are the layers that models built on theirs add, and `compressor` what those call them.
    """
    where = root / "config.json"
    require(
        found,
        where,
        {
            "mm_projector_type": ("mlp2x_gelu",),
            "mm_resampler_type": (None,),
            "mm_patch_merge_type": ("flat", "spatial", "spatial_unpad"),
            "mm_newline_position": tuple(_NEWLINES),
            "mm_spatial_pool_mode": tuple(_POOLINGS),
            "add_faster_video": (False, None),
            "mm_vision_select_layer": (-2,),
            "mm_vision_select_feature": ("patch",),
            "compressor_type": (compressor,),
            "temporal_pooling": (1, None),
        },
    )
    merge = found.get("mm_patch_merge_type", "flat")
    newline = _NEWLINES[found.get("mm_newline_position", "one_token")] if merge.startswith("spatial") else "none"
    if newline == "end" and "unpad" not in merge:
        newline = "none"
    if newline != "none" and "unpad" not in merge:
        raise CheckpointError(f"{where}: line ends need mm_patch_merge_type spatial_unpad, it is {merge!r}.")
    data = {
        "dtype": dtype,
        "vision": named_tower(found.get("mm_vision_tower"), where),
        "temporal": {"downsample": 1, "projector": "mlp2x_gelu", **temporal},
        "reduction": {
            "temporal_pool": 1,
            "spatial_pool": 2,
            "spatial_mode": _POOLINGS[found.get("mm_spatial_pool_mode", "bilinear")],
            "image_newline": newline,
        },
        "prompt": {"times": bool(found.get("add_time_instruction"))},
        "llm": language({**found, "model_type": "qwen2"}, where),
    }
    return parse_config(data, str(where))
