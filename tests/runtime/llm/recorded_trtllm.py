"""TensorRT-LLM's Executor by its recorded description: calls it would refuse are refused, and a checkpoint answers.

Every name, parameter and type is checked against tensorrt_llm_recorded.json. The numpy reader of checkpoints answers.
As the real cache does, it takes blocks of equal ids and extra ids for equal, whatever their embeddings are now.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recorded import bound

API = json.loads((Path(__file__).parent / "tensorrt_llm_recorded.json").read_text())
BLOCK = 4  # tokens
VISUAL, INPUT, SEQUENCE = 64, 96, 104  # tokens that the engine takes


def engine_folder(path: Path, checkpoint: Path, ranks: int = 1) -> Path:
    """A folder with the config.json that trtllm-build leaves beside an engine, for a checkpoint."""
    model = json.loads((checkpoint / "config.json").read_text())
    model["mapping"]["world_size"] = ranks
    build = {
        "max_input_len": INPUT,
        "max_seq_len": SEQUENCE,
        "max_batch_size": 4,
        "max_prompt_embedding_table_size": 4 * VISUAL,
        "plugin_config": {"tokens_per_block": BLOCK},
    }
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"pretrained_config": model, "build_config": build}))
    return path


def recorded(checkpoint: Any) -> SimpleNamespace:
    """A module like tensorrt_llm.bindings.executor, with a checkpoint as its engine; `made` are its Executors."""
    module = SimpleNamespace(made=[])
    for name, values in API["enumerations"].items():
        setattr(module, name, SimpleNamespace(**{v: SimpleNamespace(kind=name, value=v) for v in values}))
    for name, parameters in API["constructors"].items():
        if name != "Executor":
            setattr(module, name, _maker(name, parameters))

    def executor(*args: Any, **given: Any) -> Executor:
        made = Executor(checkpoint, bound("Executor", API["constructors"]["Executor"], args, given))
        module.made.append(made)
        return made

    module.Executor = executor
    return module


def _maker(name: str, parameters: dict[str, str]) -> Any:
    return lambda *args, **given: SimpleNamespace(kind=name, **bound(name, parameters, args, given))


class Executor:
    """Answers requests one token at a time, whenever somebody waits."""

    def __init__(self, checkpoint: Any, settings: dict[str, Any]) -> None:
        self.checkpoint, self.settings = checkpoint, settings
        self.requests: dict[int, Any] = {}
        self.cancelled: list[int] = []
        self.computed = 0  # tokens
        self.fails = ""
        self._blocks: dict[tuple[tuple[int, int], ...], np.ndarray] = {}
        self._random: dict[int, np.random.Generator] = {}

    def _call(self, name: str, *args: Any, **given: Any) -> Any:
        return list(bound(name, API["methods of Executor"][name], args, given).values())

    def enqueue_request(self, *args: Any, **given: Any) -> int:
        (request,) = self._call("enqueue_request", *args, **given)
        number = len(self.requests) + 1
        self.requests[number] = request
        table, extra = (
            np.zeros((0, self.checkpoint.config["hidden_size"]), np.float32),
            [0] * len(request.input_token_ids),
        )
        tuning = getattr(request, "prompt_tuning_config", None)
        if tuning is not None:
            assert str(tuning.embedding_table.dtype) == f"torch.{self.checkpoint.config['dtype']}"
            table, extra = tuning.embedding_table.float().numpy(), tuning.input_token_extra_ids
            assert len(extra) == len(request.input_token_ids)
        request.answer, request.reused, request.table = [], 0, table.copy()
        self._reuse(request, list(zip(request.input_token_ids, extra, strict=True)))
        self._random[number] = np.random.default_rng(getattr(request.sampling_config, "seed", None) or 0)
        return number

    def _reuse(self, request: Any, keys: list[tuple[int, int]]) -> None:
        vocabulary = self.checkpoint.config["vocab_size"]
        matching = self.settings["executor_config"].kv_cache_config.enable_block_reuse
        for end in range(BLOCK, len(keys), BLOCK):
            rows = [i - vocabulary for i, _ in keys[end - BLOCK : end] if i >= vocabulary]
            key = tuple(keys[:end])
            matching = (
                matching and key in self._blocks and self.settings["executor_config"].kv_cache_config.enable_block_reuse
            )
            if matching:
                request.table[rows] = self._blocks[key]
                request.reused += 1
            self._blocks[key] = request.table[rows]

    def await_responses(self, *args: Any, **given: Any) -> list[SimpleNamespace]:
        number, _ = self._call("await_responses", *args, **given)
        request = self.requests[number]
        if self.fails:
            return [SimpleNamespace(has_error=lambda: True, error_msg=self.fails)]
        assert number not in self.cancelled
        ids = [*request.input_token_ids, *request.answer]
        logits = self.checkpoint.logits(ids, request.table)
        self.computed += 1
        request.answer.append(token := self._choose(number, request.sampling_config, logits))
        ended = token in [x for (x,) in (request.stop_words or [])]
        metrics = SimpleNamespace(kv_cache_metrics=SimpleNamespace(num_reused_blocks=request.reused))
        wanted = request.output_config.return_generation_logits
        filled = np.concatenate([logits, np.zeros(3, np.float32)])  # as the vocabulary is filled up for the ranks
        result = SimpleNamespace(
            is_final=ended or len(request.answer) == request.max_tokens,
            output_token_ids=[[token]],
            generation_logits=torch.from_numpy(filled)[None, None] if wanted else None,
            request_perf_metrics=metrics if request.output_config.return_perf_metrics else None,
        )
        return [SimpleNamespace(has_error=lambda: False, error_msg="", result=result)]

    def _choose(self, number: int, sampling: Any, logits: np.ndarray) -> int:
        if getattr(sampling, "top_k", None) == 1:
            return int(logits.argmax())
        chances = np.exp((logits - logits.max()) / sampling.temperature).astype(np.float64)
        return int(self._random[number].choice(len(logits), p=chances / chances.sum()))

    def cancel_request(self, *args: Any, **given: Any) -> None:
        (number,) = self._call("cancel_request", *args, **given)
        self.cancelled.append(number)
