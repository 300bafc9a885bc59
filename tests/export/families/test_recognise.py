"""Which family a folder is of, and what is said of those that are of none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from llava_models import random_llava, save_as_transformers
from safetensors.torch import load_file, save_file

from storm_edge.export.families.recognise import family_of, open_checkpoint
from storm_edge.runtime.errors import CheckpointError


def refusal(root: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_storms_own_checkpoints_are_opened_as_before(checkpoint: Path) -> None:
    family, opened = open_checkpoint(checkpoint)
    assert family.name == "storm"
    assert opened.tokenizer == checkpoint / "llm"


def test_a_storm_configuration_may_leave_out_its_type(checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(checkpoint)
    data = json.loads((copy / "config.json").read_text())
    del data["model_type"]
    (copy / "config.json").write_text(json.dumps(data))
    assert open_checkpoint(copy)[0].name == "storm"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"model_type": "qwen2_vl"}, "'qwen2_vl' is of no family"),
        ({"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}, "'llava' is of no family"),
        ({"model_type": "llava"}, "'llava' is of no family"),
        ({"model_type": ["x"]}, "is of no family"),
        ([], "no JSON object"),
    ],
)
def test_another_model_is_refused_with_the_families_that_there_are(tmp_path: Path, data: object, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert words in refusal(tmp_path)


def test_a_folder_without_configuration_and_an_adapter_say_what_to_do(tmp_path: Path) -> None:
    assert "config.json does not exist" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "merge it into its base model" in refusal(tmp_path)
    assert "is no folder" in refusal(tmp_path / "none")


def test_weights_in_pytorch_files_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    assert "safe_serialization=True" in refusal(root)


def test_missing_unexpected_and_misshapen_tensors_are_named_as_the_file_names_them(tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    tensors = load_file(root / "model.safetensors")
    newline = tensors.pop("image_newline")
    save_file(tensors, root / "model.safetensors")
    assert "no tensors called ...image_newline" in refusal(root)
    tensors |= {"image_newline": newline[:-1].clone(), "surprise": newline}
    del tensors["language_model.model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, root / "model.safetensors")
    message = refusal(root)
    assert "missing language_model.model.layers.1.mlp.up_proj.weight" in message
    assert "unexpected surprise" in message
    assert "image_newline is [63]" in message


def test_shards_are_read_where_they_are(tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    random_llava().save_pretrained(root, max_shard_size="500KB")
    (root / "model.safetensors").unlink()
    _, opened = open_checkpoint(root)
    assert len({opened.llm.place(name) for name in opened.llm.names}) > 1
    assert opened.llm.read("model.norm.weight").shape == (64,)
    assert opened.sha256() != family_of(root)[0].name
