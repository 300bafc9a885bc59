"""A folder that trtllm-build made: that it is the one its record lists, and what it was compiled for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storm_edge.runtime.bundle.engine import EngineRecord, build_again
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.language_folder import language_folder
from storm_edge.runtime.llm.tensorrt_llm_package import PACKAGE, require_package


class EngineLimits:
    """What an engine was compiled for, out of the config.json that trtllm-build leaves beside it."""

    def __init__(self, found: dict[str, Any]) -> None:
        model, build = found["pretrained_config"], found["build_config"]
        self.vocabulary, self.dtype = int(model["vocab_size"]), str(model["dtype"])
        self.ranks = int(model["mapping"]["world_size"])
        self.input, self.sequence = int(build["max_input_len"]), int(build["max_seq_len"])
        # The table of all requests together has so many rows.
        self.visual = int(build["max_prompt_embedding_table_size"]) // int(build["max_batch_size"])
        self.tokens_per_block = int(build["plugin_config"]["tokens_per_block"])

    @classmethod
    def read(cls, folder: Path) -> EngineLimits:
        """Read them; raises EngineError where the folder holds no engine of TensorRT-LLM."""
        try:
            return cls(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as e:
            raise EngineError(
                f"{folder} holds no engine of TensorRT-LLM ({' '.join(str(e).split())}): build it again."
            ) from e


def engine_folder(bundle: Bundle, record: EngineRecord) -> Path:
    """The folder of an engine's language model; raises EngineError where another version compiled it, and as
    `language_folder`.
    """
    installed, made_with = require_package(), record.versions.get(PACKAGE)
    if installed != made_with:
        raise EngineError(
            f"engine {record.name} was compiled by {PACKAGE} {made_with}, this machine has {installed}: build it again"
            f" here with `{build_again(bundle, record)}`."
        )
    return language_folder(bundle, record)
