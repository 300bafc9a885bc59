"""vLLM's AsyncLLM by its recorded description: calls it would refuse are refused, and its folder's model answers.

Every name, parameter and type is checked against vllm_recorded.json, and what the package checks beside types.
transformers reads the folder. As the real cache does, it takes blocks whose rows have equal hashes for equal.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recorded import bound
from transformers import AutoModelForCausalLM

API = json.loads((Path(__file__).parent / "vllm_recorded.json").read_text())
BLOCK = 4  # tokens


def recorded() -> SimpleNamespace:
    """What vllm_package.package_names gives; `made` are the engines."""
    package = SimpleNamespace(made=[])
    for name, values in API["enumerations"].items():
        setattr(package, name, SimpleNamespace(**{v: SimpleNamespace(kind=name, value=v) for v in values}))

    def arguments(*args: Any, **given: Any) -> SimpleNamespace:
        found = bound("AsyncEngineArgs", API["constructors"]["AsyncEngineArgs"], args, given)
        for name, values in API["values"].items():
            if found.get(name, values[0]) not in values:
                raise TypeError(f"{name} is none of {values}")
        return SimpleNamespace(kind="AsyncEngineArgs", **found)

    def params(*args: Any, **given: Any) -> SimpleNamespace:
        found = bound("SamplingParams", API["constructors"]["SamplingParams"], args, given)
        defaults = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": None, "max_tokens": 16, "logprobs": None}
        _verify(made := SimpleNamespace(kind="SamplingParams", **(defaults | found)))
        return made

    def embeds_input(*args: Any, **given: Any) -> SimpleNamespace:
        return SimpleNamespace(
            kind="EmbedsInput", **bound("embeds_input", API["functions"]["embeds_input"], args, given)
        )

    def from_engine_args(*args: Any, **given: Any) -> AsyncLLM:
        found = bound("from_engine_args", API["functions"]["from_engine_args"], args, given)
        package.made.append(AsyncLLM(found["engine_args"]))
        return package.made[-1]

    package.AsyncEngineArgs, package.SamplingParams, package.embeds_input = arguments, params, embeds_input
    package.AsyncLLM = SimpleNamespace(from_engine_args=from_engine_args)
    return package


def _verify(params: SimpleNamespace) -> None:
    """What SamplingParams refuses (_verify_args, _validate_trace_replay), or changes without a word."""
    if not (params.temperature == 0 or 0.01 <= params.temperature <= 2):
        raise ValueError("temperature")
    if not 0 < params.top_p <= 1 or params.top_k < -1 or params.max_tokens < 1 or params.seed == -1:
        raise ValueError("sampling parameters")
    if getattr(params, "stop", None) and not getattr(params, "detokenize", True):
        raise ValueError("stop strings are only supported when detokenize is True")
    trace = getattr(params, "trace_decode_token_ids", None)
    if trace is not None and (not trace or getattr(params, "prompt_logprobs", None) is not None):
        raise ValueError("trace_decode_token_ids")


class AsyncLLM:
    """Computes one token whenever a request's next output is asked for."""

    def __init__(self, args: SimpleNamespace) -> None:
        self.args = args
        self.model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        self.requests: dict[str, Any] = {}
        self.aborted: list[str] = []
        self.computed = 0  # tokens
        self.fails = ""
        self.stopped = False
        self._blocks: dict[bytes, torch.Tensor] = {}

    def shutdown(self, *args: Any, **given: Any) -> None:
        bound("shutdown", API["functions"]["shutdown"], args, given)
        self.stopped = True

    async def generate(self, *args: Any, **given: Any) -> AsyncIterator[SimpleNamespace]:
        prompt, params, name = bound("generate", API["functions"]["generate"], args, given).values()
        self._validate(prompt, params)
        if name in self.requests:
            raise ValueError(f"request {name} is there already")
        self.requests[name] = params
        rows, cached = self._reuse(prompt.prompt_embeds, getattr(params, "skip_reading_prefix_cache", False))
        answer: list[int] = []
        scores = []
        trace = getattr(params, "trace_decode_token_ids", None)
        most = min(params.max_tokens, self.args.max_model_len - len(rows), len(trace or range(params.max_tokens)))
        kind = getattr(params, "output_kind", SimpleNamespace(value="CUMULATIVE")).value
        finished = False
        try:
            while not finished:
                await asyncio.sleep(0)
                if self.fails:
                    raise RuntimeError(self.fails)
                logits = self._logits(rows, answer)
                scores.append(logits)
                answer.append(trace[len(answer)] if trace else _choose(logits, params, len(answer)))
                ended = not trace and answer[-1] in (getattr(params, "stop_token_ids", None) or [])
                finished = ended or len(answer) == most
                if finished or kind != "FINAL_ONLY":
                    given_out = answer[-1:] if kind == "DELTA" else list(answer)
                    logprobs = _flat(scores, answer) if params.logprobs == -1 else None
                    completion = SimpleNamespace(index=0, token_ids=given_out, logprobs=logprobs)
                    yield SimpleNamespace(outputs=[completion], finished=finished, num_cached_tokens=cached)
        except GeneratorExit:
            if not finished:
                self.aborted.append(name)
            raise

    def _validate(self, prompt: SimpleNamespace, params: SimpleNamespace) -> None:
        """InputProcessor's checks of a request against the engine's configuration."""
        given = vars(self.args)
        assert given.get("enable_prompt_embeds")
        embeds = prompt.prompt_embeds
        assert embeds.ndim == 2
        assert embeds.shape[1] == self.model.config.hidden_size
        assert str(embeds.dtype) == f"torch.{given['dtype']}"
        assert not hasattr(prompt, "prompt_token_ids")  # never the mixed mode
        assert 0 < len(embeds) < given["max_model_len"]
        if getattr(params, "trace_decode_token_ids", None):
            assert given.get("enable_trace_replay")
            assert getattr(params, "ignore_eos", False)
        if params.logprobs is not None:
            assert given.get("max_logprobs", 20) == -1
            assert given.get("logprobs_mode") == "raw_logits"
            assert getattr(params, "flat_logprobs", False)

    def _reuse(self, embeds: torch.Tensor, skip: bool) -> tuple[torch.Tensor, int]:
        """The rows that are computed with, and how many positions lie in the cache."""
        rows, key, cached = embeds.float().clone(), b"", 0
        matching = self.args.enable_prefix_caching and not skip
        for end in range(BLOCK, len(embeds), BLOCK):
            block = slice(end - BLOCK, end)
            key = hashlib.sha256(key + embeds[block].contiguous().view(torch.uint8).numpy().tobytes()).digest()
            matching = matching and key in self._blocks
            if matching:
                rows[block] = self._blocks[key]
                cached = end
            self._blocks[key] = rows[block].clone()
        return rows, cached

    def _logits(self, rows: torch.Tensor, answer: list[int]) -> np.ndarray:
        self.computed += 1
        with torch.no_grad():
            said = self.model.get_input_embeddings()(torch.tensor(answer, dtype=torch.long))
            whole = torch.cat([rows, said])[None]
            return self.model(inputs_embeds=whole).logits[0, -1].numpy()


def _choose(logits: np.ndarray, params: SimpleNamespace, position: int) -> int:
    if params.temperature == 0:
        return int(logits.argmax())
    scores = logits.astype(np.float64) / params.temperature
    if params.top_k > 0:
        scores[scores < np.sort(scores)[-params.top_k]] = -np.inf
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    order = np.argsort(-chances)
    chances[order[np.cumsum(chances[order]) - chances[order] >= params.top_p]] = 0
    random = np.random.default_rng() if params.seed is None else np.random.default_rng([params.seed, position])
    return int(random.choice(len(chances), p=chances / chances.sum()))


def _flat(scores: list[np.ndarray], answer: list[int]) -> SimpleNamespace:
    """FlatLogprobs: of every position the chosen token's, then the whole vocabulary's from the likeliest on."""
    made = SimpleNamespace(start_indices=[], end_indices=[], token_ids=[], logprobs=[])
    for logits, token in zip(scores, answer, strict=True):
        order = np.argsort(-logits).tolist()
        made.start_indices.append(len(made.token_ids))
        made.token_ids += [token, *order]
        made.logprobs += [float(logits[token]), *logits[order].tolist()]
        made.end_indices.append(len(made.token_ids))
    return made
