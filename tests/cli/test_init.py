from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from storm_edge.cli.init import command
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.runtime.errors import UsageError


def init(output: Path, *arguments: str) -> Result:
    switches = {"verbose": False, "quiet": False}
    return CliRunner().invoke(command, ["storm-mini", "-o", str(output), *arguments], obj=switches)


def test_a_preset_is_changed_by_settings(tmp_path: Path) -> None:
    settings = ("--set", "temporal.num_layers=1", "--set", "llm.num_attention_heads=8", "--set", "dtype=bfloat16")
    done = init(tmp_path / "checkpoint", *settings)
    assert done.exception is None
    opened = Checkpoint.open(tmp_path / "checkpoint")
    assert (opened.config.temporal.num_layers, opened.config.llm.head_dim) == (1, 16)
    assert opened.llm.dtype("model.norm.weight") == "bfloat16"


def test_a_setting_that_an_imported_part_contradicts_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    qwen = tmp_path / "qwen"
    qwen.mkdir()
    for file in (checkpoint / "llm").iterdir():
        (qwen / file.name).symlink_to(file)
    config = json.loads((checkpoint / "config.json").read_text())["llm"]
    (qwen / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
    arguments = ("--llm", str(qwen), "--set", "llm.max_position_embeddings=4096")
    assert isinstance(init(tmp_path / "other", *arguments).exception, UsageError)
    assert init(tmp_path / "checkpoint", *arguments[:2]).exception is None
