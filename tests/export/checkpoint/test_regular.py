from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.checkpoint.tokenizer import FILES, check_tokenizer
from storm_edge.runtime.errors import CheckpointError

Copy = Callable[[Path], Path]
READ = (
    "config.json",
    "llm/config.json",
    "vision_tower/config.json",
    "vision_tower/model.safetensors",
    "temporal.safetensors",
    "llm/model.safetensors.index.json",
    "llm/model.safetensors",
    *(f"llm/{name}" for name in FILES),
)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [pipe, device, folder])
@pytest.mark.parametrize("name", READ)
def test_a_pipe_a_device_or_a_folder_where_a_file_belongs_is_refused(
    name: str, make: Callable[[Path], None], checkpoint: Path, copy_of: Copy
) -> None:
    copy = copy_of(checkpoint)
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    with pytest.raises(CheckpointError, match="a pipe or a device where a file belongs") as e:
        check_tokenizer(copy / "llm", Checkpoint.open(copy).config.llm.vocab_size)
    assert str(copy / name) in str(e.value)
    assert "\n" not in str(e.value)


def test_links_to_files_and_folders_are_followed(checkpoint: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "llm").mkdir(parents=True)
    for name in ("config.json", "temporal.safetensors", "vision_tower"):
        (linked / name).symlink_to(checkpoint / name)
    for file in (checkpoint / "llm").iterdir():
        (linked / "llm" / file.name).symlink_to(file)
    opened = Checkpoint.open(linked)
    check_tokenizer(linked / "llm", opened.config.llm.vocab_size)
    assert opened.sha256() == Checkpoint.open(checkpoint).sha256()


def test_a_configuration_of_gigabytes_is_refused_unread(checkpoint: Path, copy_of: Copy) -> None:
    copy = copy_of(checkpoint)
    os.truncate(copy / "config.json", 1 << 40)
    with pytest.raises(CheckpointError, match=r"config\.json .*it has 1099511627776 bytes"):
        Checkpoint.open(copy)
