from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from llava_models import random_llava, save_as_transformers

from storm_edge.export.families.summary import summarize
from storm_edge.export.initialize import initialize
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import CheckpointError


def test_a_whole_checkpoint_lacks_nothing(config: StormConfig, tmp_path: Path) -> None:
    initialize(config.model_copy(update={"dtype": "bfloat16"}), tmp_path / "checkpoint")
    facts = summarize(tmp_path / "checkpoint")
    assert facts["missing"] == "nothing: storm export"
    assert facts["parts"]["language"].endswith(" parameters, bfloat16")
    assert "bfloat16 " in facts["parts"]["temporal"]  # A_log, D and the steps' bias are float32
    assert ", float32 " in facts["parts"]["temporal"]
    assert facts["tokenizer"] == "4,096 of 4,096 ids"
    assert facts["config"]["llm"]["hidden_size"] == 128


def test_everything_that_is_missing_is_named(checkpoint: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(checkpoint)
    (copy / "temporal.safetensors").unlink()
    (copy / "llm" / "tokenizer.json").unlink()
    facts = summarize(copy)
    assert [name for name, text in facts["parts"].items() if text == "not usable"] == ["temporal"]
    assert len(facts["missing"]) == 2
    assert "temporal.safetensors is missing" in facts["missing"][0]
    assert "tokenizer.json is missing" in facts["missing"][1]


def test_a_folder_without_a_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        summarize(tmp_path)


def test_it_needs_no_torch(checkpoint: Path) -> None:
    code = (
        "import sys, pathlib; from storm_edge.export.families.summary import summarize;"
        " summarize(pathlib.Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, checkpoint], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_checkpoint_of_another_family_is_named_and_described(tmp_path: Path) -> None:
    root = save_as_transformers(random_llava(), tmp_path / "llava")
    facts = summarize(root)
    assert facts["family"] == "LLaVA-OneVision or LLaVA-Video"
    assert facts["missing"] == "nothing: storm export"
    assert facts["parts"]["temporal"] == "8,384 parameters, float32"  # the projector and the line end
    assert facts["visual tokens per pooled frame"] == 9
    (root / "model.safetensors").write_bytes(b"")
    assert "model.safetensors is truncated" in summarize(root)["missing"][0]
