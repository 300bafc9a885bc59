"""VILA's config.json and those of its three parts, each in a folder with its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storm_edge.export.checkpoint.regular import read_json
from storm_edge.export.families.family import Found
from storm_edge.export.families.frames import normalisation
from storm_edge.export.families.sections import language, require, siglip
from storm_edge.runtime.config.schema import StormConfig, parse_config
from storm_edge.runtime.errors import CheckpointError

_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # SiglipImageProcessor's
# The projector's kinds -> side of a block, and the layers behind the norm; all have one in front.
PROJECTORS = {
    "mlp_downsample": (2, "mlp2x_gelu"),
    "mlp_downsample_2x2_fix": (2, "mlp2x_gelu"),
    "mlp_downsample_3x3_fix": (3, "mlp3x_gelu"),
}
_BASIC, _POOLED = "BasicVideoEncoder", "TSPVideoEncoder"


def config_of_nvila(root: Path, found: Found, dtype: str) -> StormConfig:
    """The parts of a checkpoint; raises CheckpointError for those that this code does not run."""
    where = root / "config.json"
    require(
        found,
        where,
        {
            "s2": (None, False),
            "dynamic_s2": (None, False),
            "ps3": (None, False),
            "video_max_tiles": (1, None),
            "image_aspect_ratio": ("resize", "dynamic", None),
            "mm_vision_select_layer": (-2,),
            "mm_vision_select_feature": ("cls_patch",),
            "mm_use_im_start_end": (False, None),
            "chat_template": (None, "qwen2"),
        },
    )
    vision = siglip(_part(root, "vision_tower"), root / "vision_tower" / "config.json")
    if found.get("vision_resolution") not in (None, -1, vision["image_size"]):
        raise CheckpointError(
            f"{where} has vision_resolution {found['vision_resolution']!r}, but the vision tower beside it takes"
            f" {vision['image_size']}: use a checkpoint whose position embeddings are resized already."
        )
    projector_file = root / "mm_projector" / "config.json"
    kind = _part(root, "mm_projector").get("mm_projector_type")
    if kind not in PROJECTORS:
        raise CheckpointError(
            f"{projector_file} has mm_projector_type {kind!r}: only {', '.join(PROJECTORS)} run here."
        )
    side, projector = PROJECTORS[kind]
    data = {
        "dtype": dtype,
        "vision": vision | normalisation(root / "vision_tower", vision["image_size"], _HALF) | {"feature_layer": -2},
        "temporal": {"num_layers": 0, "downsample": side, "projector": projector, "projector_norm": True},
        "reduction": _reduction(found, where),
        "llm": language(_part(root, "llm"), root / "llm" / "config.json"),
    }
    return parse_config(data, str(where))


def _part(root: Path, name: str) -> Mapping[str, Any]:
    return read_json(root / name / "config.json", "restore it from the checkpoint's source")


def _reduction(found: Found, where: Path) -> dict[str, Any]:
    """What the video encoder does with the frames' tokens: pooling, and "\\n" behind every frame that is left."""
    encoder = _encoder(found, where)
    kind = str(encoder.get("_target_", _BASIC)).rpartition(".")[2]
    if kind not in (_BASIC, _POOLED):
        raise CheckpointError(f"{where} has the video_encoder {kind!r}: only {_BASIC} and {_POOLED} run here.")
    require(encoder, where, {"start_tokens": (None,), "end_tokens": ("\n", None), "sep_tokens": (None,)})
    pools = encoder.get("pool_sizes", []) if kind == _POOLED else [[1, 1, 1]]
    if not isinstance(pools, list) or len(pools) != 1 or not isinstance(pools[0], list) or len(pools[0]) != 3:
        raise CheckpointError(f"{where} has pool_sizes {pools!r}: one triple (time, height, width) runs here."[:300])
    time, height, width = pools[0]
    if height != width:
        raise CheckpointError(f"{where} pools {height!r} x {width!r} tokens of a frame: only squares run here."[:300])
    return {
        "temporal_pool": time,
        "spatial_pool": height,
        "newline_token": encoder.get("end_tokens", "\n") is not None,
    }


def _encoder(found: Found, where: Path) -> Mapping[str, Any]:
    """The video_encoder, which is an object or JSON in a string."""
    encoder = found.get("video_encoder") or {}
    if isinstance(encoder, str):
        try:
            encoder = json.loads(encoder)
        except (ValueError, RecursionError) as e:
            raise CheckpointError(
                f"{where} has a video_encoder that is no JSON: restore it from the checkpoint's source."
            ) from e
    if not isinstance(encoder, Mapping):
        raise CheckpointError(
            f"{where} has a video_encoder that is no object: restore it from the checkpoint's source."
        )
    return encoder
