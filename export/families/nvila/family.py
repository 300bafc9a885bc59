"""NVILA's checkpoints, as VILA's code saves them: a folder for each of llm, vision_tower and mm_projector.

Structure: VILA's llava/model/llava_arch.py, multimodal_projector/base_projector.py and encoders/video/{basic,tsp}.py.
Of its models those run that see every frame once, at the tower's size.
"""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.head import EMBEDDING
from storm_edge.export.checkpoint.shapes import temporal_shapes
from storm_edge.export.families.family import Family, Found
from storm_edge.export.families.nvila.config import config_of_nvila
from storm_edge.export.families.tensors import open_safetensors

# Our names of the projector's parts -> their places in VILA's nn.Sequential, whose first is the space-to-depth.
_PLACES = {
    "mlp2x_gelu": {"norm": 1, "linear": 2, "linear_2": 4},
    "mlp3x_gelu": {"norm": 1, "linear": 2, "norm_2": 4, "linear_2": 5, "linear_3": 7},
}


def _recognises(found: Found) -> bool:
    """LLaVA's first models are of type `llava_llama` too, without a projector in a folder of its own."""
    return found.get("model_type") == "llava_llama" and "mm_projector_cfg" in found


def _open(root: Path, found: Found) -> Checkpoint:
    vision, projector, llm = (open_safetensors(root / part) for part in ("vision_tower", "mm_projector", "llm"))
    config = config_of_nvila(root, found, llm.dtype(EMBEDDING))
    places = _PLACES[config.temporal.projector]
    names = {}
    for name in temporal_shapes(config):
        _, part, kind = name.split(".")
        names[name] = f"layers.{places[part]}.{kind}"
    folders = (root, root / "vision_tower", root / "mm_projector", root / "llm")
    temporal = projector.renamed(names)
    return Checkpoint(root, config, vision, temporal, llm, root / "llm", folders, joined=True).checked()


NVILA = Family("nvila", "NVILA", _recognises, _open)
