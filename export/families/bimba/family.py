"""BIMBA's checkpoints: LLaVA-NeXT's layout with `compressor_type` bimba and the selector's tensors.

Structure: BIMBA's llava/model/llava_arch.py, `get_2dPool`, and multimodal_resampler/mamba_ssm/modules/
mamba_compressor.py. The published file is a LoRA adapter on LLaVA-Video-7B-Qwen2, to be merged before it is exported.
"""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import temporal_shapes
from storm_edge.export.families.family import Family, Found
from storm_edge.export.families.llava_onevision.authors import config_of_authors
from storm_edge.export.families.llava_onevision.family import AUTHORS_PROJECTOR, is_of_authors, projector_names
from storm_edge.export.families.tensors import dtype_of, mapped, open_safetensors

# MambaCompressor(d_model, n_layer=1), whose other arguments the code leaves at their defaults.
_SELECTOR = {
    "num_layers": 1,
    "d_state": 16,
    "d_conv": 4,
    "expand": 2,
    "bidirectional": True,
    "halve_sum": False,
    "norm": "rms",
    "layer_norm_eps": 1e-6,
    "queries": True,
}


def _recognises(found: Found) -> bool:
    return is_of_authors(found) and found.get("compressor_type") == "bimba"


def _open(root: Path, found: Found) -> Checkpoint:
    weights = open_safetensors(root)
    config = config_of_authors(root, found, dtype_of(weights), _SELECTOR, "bimba")
    layers = {name: f"compressor.{name}" for name in temporal_shapes(config) if name.startswith("layers.")}
    return mapped(root, config, weights, projector_names(AUTHORS_PROJECTOR) | layers)


BIMBA = Family("bimba", "BIMBA-LLaVA", _recognises, _open)
