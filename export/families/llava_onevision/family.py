"""Both layouts of LLaVA-OneVision: transformers' own, and that of the authors' code (LLaVA-NeXT).

Structure: transformers' modeling_llava_onevision.py, `get_video_features`; LLaVA-NeXT's llava/model/llava_arch.py,
`prepare_inputs_labels_for_multimodal` with the modality "video".
"""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.shapes import NEWLINE
from storm_edge.export.families.family import Family, Found
from storm_edge.export.families.llava_onevision.authors import config_of_authors
from storm_edge.export.families.llava_onevision.transformers import config_of_transformers
from storm_edge.export.families.tensors import dtype_of, mapped, open_safetensors

_TRANSFORMERS, _AUTHORS = "llava_onevision", ("llava_qwen", "llava")
# Names of the projector and the line end, as they end in the files of either layout.
AUTHORS_PROJECTOR = ("mm_projector.0", "mm_projector.2")
_PROJECTORS = {
    True: ("multi_modal_projector.linear_1", "multi_modal_projector.linear_2"),
    False: AUTHORS_PROJECTOR,
}


def _recognises(found: Found) -> bool:
    """The authors' files say `llava` or `llava_qwen`; so do those of older models on other language models."""
    if found.get("model_type") == _TRANSFORMERS:
        return True
    return is_of_authors(found) and not found.get("compressor_type")


def is_of_authors(found: Found) -> bool:
    """Whether a configuration is one of LLaVA-NeXT's code, on Qwen2."""
    return found.get("model_type") in _AUTHORS and "LlavaQwenForCausalLM" in (found.get("architectures") or ())


def open_llava(root: Path, found: Found) -> Checkpoint:
    """A checkpoint in either layout; raises CheckpointError."""
    weights = open_safetensors(root)
    of_transformers = found.get("model_type") == _TRANSFORMERS
    config = (config_of_transformers if of_transformers else config_of_authors)(root, found, dtype_of(weights))
    return mapped(root, config, weights, projector_names(_PROJECTORS[of_transformers]))


def projector_names(theirs: tuple[str, str]) -> dict[str, str]:
    """Our names of the projector's tensors and the line end -> how theirs end; `theirs` are its two layers."""
    names = {NEWLINE: "image_newline"}
    for ours, layer in zip(("linear", "linear_2"), theirs, strict=True):
        names |= {f"projector.{ours}.{kind}": f"{layer}.{kind}" for kind in ("weight", "bias")}
    return names


LLAVA_ONEVISION = Family("llava-onevision", "LLaVA-OneVision or LLaVA-Video", _recognises, open_llava)
