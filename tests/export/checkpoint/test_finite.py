from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from storm_edge.export.checkpoint.finite import count_not_finite
from storm_edge.export.export_bundle import export_bundle
from storm_edge.runtime.errors import CheckpointError


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_nan_and_infinity_are_counted_in_every_type(dtype: type) -> None:
    values = np.full((2, 4_194_304), np.finfo(np.float16).max, dtype)
    assert count_not_finite(values) == 0
    values[0, 0], values[1, 5], values[1, -1] = np.nan, np.inf, -np.inf
    assert count_not_finite(values) == 3
    assert count_not_finite(np.arange(5)) == 0


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("vision_tower/model.safetensors", "encoder.layers.1.mlp.fc1.bias"),
        ("temporal.safetensors", "projector.linear.weight"),
        ("temporal.safetensors", "layers.1.mixer.A_b_log"),
        ("llm/model.safetensors", "model.layers.3.mlp.up_proj.weight"),
        ("llm/model.safetensors", "model.embed_tokens.weight"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_tensor_with_nan_or_infinity_is_named_and_nothing_is_exported(
    part: str, name: str, value: float, checkpoint: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(checkpoint)
    tensors = load_file(copy / part)
    tensors[name].reshape(-1)[-1] = value
    save_file(tensors, copy / part)
    with pytest.raises(CheckpointError, match=rf"^tensor {name} in .*{part} holds NaN or infinity \(1 of \d+ values\)"):
        export_bundle(copy, copy.parent / "bundle")
    assert not (copy.parent / "bundle").exists()
