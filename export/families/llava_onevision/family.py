"""Both layouts of LLaVA-OneVision: transformers' own, and that of the authors' code (LLaVA-NeXT).

Structure: transformers' modeling_llava_onevision.py, `get_video_features`; LLaVA-NeXT's llava/model/llava_arch.py,
`prepare_inputs_labels_for_multimodal` with the modality "video".
"""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.head import EMBEDDING
from storm_edge.export.checkpoint.shapes import NEWLINE
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.families.family import Family, Found
from storm_edge.export.families.llava_onevision.authors import config_of_authors
from storm_edge.export.families.llava_onevision.transformers import config_of_transformers
from storm_edge.export.families.tensors import mapped, open_safetensors, prefix_of

_TRANSFORMERS, _AUTHORS = "llava_onevision", ("llava_qwen", "llava")
# Names of the projector and the line end, as they end in the files of either layout.
_PROJECTORS = {
    True: ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
    False: ("mm_projector.0", "mm_projector.2"),
}


def _recognises(found: Found) -> bool:
    """The authors' files say `llava` or `llava_qwen`; so do those of older models on other language models."""
    if found.get("model_type") == _TRANSFORMERS:
        return True
    return found.get("model_type") in _AUTHORS and "LlavaQwenForCausalLM" in (found.get("architectures") or ())


def open_llava(root: Path, found: Found) -> Checkpoint:
    """A checkpoint in either layout; raises CheckpointError."""
    weights = open_safetensors(root)
    of_transformers = found.get("model_type") == _TRANSFORMERS
    dtype = _dtype(weights)
    config = (config_of_transformers if of_transformers else config_of_authors)(root, found, dtype)
    names = {NEWLINE: "image_newline"}
    for ours, theirs in zip(("linear", "linear_2"), _PROJECTORS[of_transformers], strict=True):
        names |= {f"projector.{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}
    return mapped(root, config, weights, names)


def _dtype(weights: Weights) -> str:
    """The type that the language model is stored in."""
    ending = EMBEDDING.removeprefix("model.")
    return weights.dtype(prefix_of(weights, ending) + ending)


LLAVA_ONEVISION = Family("llava-onevision", "LLaVA-OneVision or LLaVA-Video", _recognises, open_llava)
