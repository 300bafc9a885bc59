from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.head import check_tied_head
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.errors import CheckpointError


def with_head(checkpoint: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = checkpoint / "llm" / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": change(tensors["model.embed_tokens.weight"].copy())}, path)


def last_value_changed(table: np.ndarray) -> np.ndarray:
    table[-1, -1] = np.nextafter(table[-1, -1], np.float32(9))
    return table


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (last_value_changed, "1 different values"),
        (lambda table: table[:-1].copy(), r"shapes \[4095, 128\] and \[4096, 128\]"),
        (lambda table: table.astype(ml_dtypes.bfloat16), "different values"),
    ],
)
def test_a_tied_model_with_another_head_in_its_file_is_refused(
    change: Callable[[np.ndarray], np.ndarray], words: str, checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(checkpoint)
    with_head(copy, change)
    with pytest.raises(CheckpointError, match=rf"^lm_head\.weight in .* and model\.embed_tokens\.weight in .*{words}"):
        export_bundle(copy, copy.parent / "bundle")


def test_a_tied_head_that_is_the_table_passes(checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(checkpoint)
    with_head(copy, lambda table: table)
    opened = Checkpoint.open(copy)
    assert "lm_head.weight" in opened.llm.names
    check_tied_head(opened.config.llm, opened.llm)
