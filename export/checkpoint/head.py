"""The output head of a language model that shares its embedding table: a file may hold it nevertheless."""

from __future__ import annotations

import numpy as np

from storm_edge.export.checkpoint.weights import Weights
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import CheckpointError

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_BLOCK = 1 << 22  # values that are compared at a time


def tied_head(llm: LanguageConfig) -> tuple[str, ...]:
    """The tensors that a checkpoint may hold although the model takes their values from others."""
    return (HEAD,) if llm.tie_word_embeddings else ()


def check_tied_head(llm: LanguageConfig, weights: Weights) -> None:
    """Raise CheckpointError where a tied model's file has a head with other values than the embedding table.

    transformers would run the table in its stead, so one of the two is not the model that was trained.
    """
    if not llm.tie_word_embeddings or HEAD not in weights.names:
        return
    names = f"{HEAD} in {weights.place(HEAD)} and {EMBEDDING} in {weights.place(EMBEDDING)}"
    if weights.shape(HEAD) != weights.shape(EMBEDDING):
        differing = f"shapes {list(weights.shape(HEAD))} and {list(weights.shape(EMBEDDING))}"
    else:
        pairs = zip(weights.blocks(HEAD, _BLOCK), weights.blocks(EMBEDDING, _BLOCK), strict=True)
        # Of two 16-bit types either may hold what the other cannot; fp32 holds both.
        count = sum(int(np.count_nonzero(a.astype(np.float32) != b.astype(np.float32))) for a, b in pairs)
        if not count:
            return
        differing = f"{count} different values"
    raise CheckpointError(
        f"{names} have {differing}, but llm.tie_word_embeddings says that they are one: set it to false in config.json"
        f" to keep both, or remove {HEAD} from the file."
    )
