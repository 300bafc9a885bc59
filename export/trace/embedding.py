"""The token embedding table of a bundle: kept beside the graph, because the runtime reads single rows of it."""

from __future__ import annotations

from pathlib import Path

from storm_edge.export.checkpoint.head import EMBEDDING
from storm_edge.export.checkpoint.weights import Array, LazyTensor, Weights, write_safetensors
from storm_edge.runtime.config.schema import DType
from storm_edge.runtime.llm.embedding import NEWLINE_NAME, TENSOR_NAME


def write_embedding(weights: Weights, path: Path, dtype: DType = "float32", newline: Array | None = None) -> None:
    """Write [vocabulary, D] rounded to `dtype`, or in the checkpoint's own type where float32 asks for no rounding.

    A trained line end (D,) goes beside it. `compose_decoder` has checked the table's shape.
    """
    tensors: dict[str, LazyTensor | Array] = {
        TENSOR_NAME: weights.lazy(EMBEDDING, None if dtype == "float32" else dtype)
    }
    if newline is not None:
        tensors[NEWLINE_NAME] = newline[None]
    write_safetensors(path, tensors)
