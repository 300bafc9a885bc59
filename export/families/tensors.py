"""Tensors of a checkpoint that keeps all parts in one folder: found by how their names end, seen by STORM's names.

What stands before a name differs between versions of the program that saved it, so it is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.folder import NOT_RUN, Checkpoint
from storm_edge.export.checkpoint.head import EMBEDDING, HEAD
from storm_edge.export.checkpoint.shapes import NEWLINE, TensorShapes, language_shapes, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import CheckpointError

_PATCHES = "embeddings.patch_embedding.weight"


def open_safetensors(root: Path) -> Weights:
    """The weights in a folder; raises CheckpointError with what to do where they are PyTorch's own files."""
    if not any(root.glob("*.safetensors")) and any(root.glob("*.bin")):
        raise CheckpointError(
            f"{root} has its weights in .bin files, which can run code: where you trust their source, convert them once"
            " with save_pretrained(folder, safe_serialization=True) of transformers."
        )
    return Weights.open(root)


def prefix_of(weights: Weights, ending: str) -> str:
    """What stands before the one tensor whose name ends in `ending`; raises CheckpointError where there is no such."""
    found = [name for name in weights.names if name == ending or name.endswith(f".{ending}")]
    if len(found) != 1:
        raise CheckpointError(
            f"{weights.path} has {len(found) or 'no'} tensors called ...{ending}, and one is needed:"
            " use a whole checkpoint of this family."
        )
    return found[0].removesuffix(ending)


def dtype_of(weights: Weights) -> str:
    """The type that the language model is stored in."""
    ending = EMBEDDING.removeprefix("model.")
    return weights.dtype(prefix_of(weights, ending) + ending)


def mapped(root: Path, config: StormConfig, weights: Weights, others: Mapping[str, str]) -> Checkpoint:
    """The checkpoint, its tensors checked. `others` maps names of `temporal_shapes` to how those in the file end.

    Vision tower and language model have Hugging Face's names behind some prefix.
    """
    vision, model = prefix_of(weights, _PATCHES), prefix_of(weights, EMBEDDING.removeprefix("model."))
    heads = [name for name in weights.names if name.endswith(HEAD)]
    head = heads[0] if heads else HEAD

    def in_llm(name: str) -> str:
        return head if name == HEAD else model + name.removeprefix("model.")

    parts: list[tuple[TensorShapes, dict[str, str]]] = []
    for shapes, names in (
        (vision_shapes(config), {n: vision + n for n in vision_shapes(config)}),
        (temporal_shapes(config), {n: prefix_of(weights, others[n]) + others[n] for n in temporal_shapes(config)}),
        (language_shapes(config.llm), {n: in_llm(n) for n in language_shapes(config.llm)}),
    ):
        parts.append((shapes, names))
    expected = {stored: shapes[name] for shapes, names in parts for name, stored in names.items()}
    ignored = [vision + pattern for pattern in NOT_RUN]
    if config.llm.tie_word_embeddings:
        ignored.append(head)
        parts[2][1].update({HEAD: head} if heads else {})
    if config.reduction.image_newline == "none":
        ignored.append(f"*{NEWLINE}")
    check_tensors(weights.shapes, expected, str(root), ignored)
    views = [weights.renamed(names) for _, names in parts]
    return Checkpoint(root, config, views[0], views[1], views[2], root, (root,)).checked()
