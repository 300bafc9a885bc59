from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.runtime.errors import CheckpointError

Copy = Callable[[Path], Path]


def edit_config(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "config.json"
    data = json.loads(path.read_text())
    for key, value in changes.items():
        data[key] = data.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(json.dumps(data))


def refusal(checkpoint: Path) -> str:
    with pytest.raises(CheckpointError) as e:
        Checkpoint.open(checkpoint)
    assert "\n" not in str(e.value)
    return str(e.value)


def test_a_whole_checkpoint_opens_and_its_hash_follows_its_contents(checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    assert Checkpoint.open(copy).sha256() == Checkpoint.open(checkpoint).sha256()
    edit_config(copy, reduction={"sample": 2})
    assert Checkpoint.open(copy).sha256() != Checkpoint.open(checkpoint).sha256()


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    assert "config.json does not exist" in refusal(tmp_path)
    assert "is no folder" in refusal(tmp_path / "none")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_an_unreadable_configuration_is_refused(text: str, checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"vision": {"num_heads": 3}}, "num_heads"),
        ({"vision": {"num_attention_heads": 3}}, "not a multiple of num_attention_heads 3"),
        ({"llm": {"num_key_value_heads": 3}}, "not a multiple of num_key_value_heads 3"),
        ({"reduction": {"spatial_pool": 3}}, "does not divide the 4 x 4 visual tokens"),
        ({"vision": {"feature_layer": -6}}, "leaves none of 5 blocks"),
        ({"temporal": {"d_state": 0}}, "d_state"),
        ({"model_type": "llava"}, "model_type"),
    ],
)
def test_unknown_and_contradicting_fields_are_named(
    changes: dict[str, Any], words: str, checkpoint: Path, copy_of: Copy
) -> None:
    copy = copy_of(checkpoint)
    edit_config(copy, **changes)
    assert words in refusal(copy)


def test_a_part_whose_own_configuration_contradicts_is_named(checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    (copy / "llm" / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 4}))
    message = refusal(copy)
    assert "hidden_size is 64 there and 128 in the checkpoint" in message
    assert "num_hidden_layers" not in message


@pytest.mark.parametrize("part", ["vision_tower/model.safetensors", "temporal.safetensors", "llm/model.safetensors"])
def test_every_missing_extra_and_misshapen_tensor_of_a_part_is_named(
    part: str, checkpoint: Path, copy_of: Copy
) -> None:
    copy = copy_of(checkpoint)
    tensors = load_file(copy / part)
    matrices = [name for name, tensor in sorted(tensors.items()) if tensor.ndim == 2 and "embed" not in name]
    lost, bent, renamed = matrices[:3]
    tensors["surprise"] = tensors.pop(renamed)
    tensors[bent] = tensors[bent][:-1].copy()
    del tensors[lost]
    save_file(tensors, copy / part)
    message = refusal(copy)
    assert f"missing {lost}, {renamed}" in message or f"missing {renamed}, {lost}" in message
    assert "unexpected surprise" in message
    assert f"{bent} is [" in message


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "absent"])
def test_damaged_safetensors_are_named(damage: str, checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    path = copy / "temporal.safetensors"
    data = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:-100], "header": data[:8] + b"!!" + data[10:], "empty": b""}[damage])
    assert "temporal.safetensors" in refusal(copy)


def test_parts_of_siglip_that_storm_does_not_run_may_be_there(checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    path = copy / "vision_tower" / "model.safetensors"
    tensors = load_file(path)
    some = next(iter(tensors.values()))
    extra = {"post_layernorm.weight": some, "head.probe": some, "encoder.layers.4.mlp.fc1.bias": some}
    save_file({f"vision_model.{name}": tensor for name, tensor in (tensors | extra).items()}, path)
    Checkpoint.open(copy)
