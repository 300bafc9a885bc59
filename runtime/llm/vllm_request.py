"""What vLLM is asked with: its engine's arguments, and sampling options as it names them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.sampling import SamplingOptions

_MEMORY_SHARE = 0.8  # of the GPU's memory; vision and temporal engines need some of the rest
_LEAST_TEMPERATURE, _LARGEST_TEMPERATURE = 0.01, 2.0  # what it changes, and what it refuses


def engine_arguments(api: Any, folder: Path, dtype: str, capacity: int, ranks: int) -> Any:
    """The engine for a folder: embeddings as prompts, no tokenizer, and forced tokens with logits for the proof."""
    return api.AsyncEngineArgs(
        model=str(folder),
        dtype=dtype,
        load_format="safetensors",  # and nothing that can carry code
        generation_config="vllm",  # its own defaults: the folder's would change what is sampled
        skip_tokenizer_init=True,
        enable_prompt_embeds=True,
        enable_prefix_caching=True,
        prefix_caching_hash_algo="sha256",
        enable_trace_replay=True,
        max_logprobs=-1,
        logprobs_mode="raw_logits",
        max_model_len=capacity,
        tensor_parallel_size=ranks,
        gpu_memory_utilization=_MEMORY_SHARE,
        seed=secrets.randbits(31),  # of requests without one of their own: it starts from 0 every time otherwise
        disable_log_stats=True,
    )


def folder_dtype(folder: Path) -> str:
    """The type of a folder's activations, out of its config.json; raises EngineError where there is none."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["torch_dtype"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EngineError(
            f"{folder} holds no model for vLLM ({' '.join(str(e).split())}): build the engine again."
        ) from e


def sampling(api: Any, options: SamplingOptions, most: int, ends: Collection[int]) -> Any:
    """Sampling options; raises UsageError for those that would mean something else there."""
    if options.repetition_penalty != 1:
        raise UsageError(
            "repetition_penalty: vLLM takes a prompt of embeddings for one of tokens 0, and would count that token as"
            " repeated: leave it at 1, or use another engine."
        )
    if options.temperature and not _LEAST_TEMPERATURE <= options.temperature <= _LARGEST_TEMPERATURE:
        raise UsageError(
            f"temperature {options.temperature}: vLLM takes {_LEAST_TEMPERATURE} to {_LARGEST_TEMPERATURE}, or 0 for"
            " greedy answers: choose one of these, or use another engine."
        )
    return api.SamplingParams(
        temperature=float(options.temperature),
        top_k=int(options.top_k),
        top_p=float(options.top_p),
        seed=None if options.seed is None else int(options.seed) % 2**63,  # it keeps 64 bits with a sign
        max_tokens=int(most),
        stop_token_ids=sorted(int(token) for token in ends),
        ignore_eos=True,  # the ends are ours
        detokenize=False,
        output_kind=api.RequestOutputKind.DELTA,
    )


def forcing(api: Any, tokens: Sequence[int]) -> Any:
    """Options that make given tokens the answer, with the logits of the whole vocabulary before each of them."""
    return api.SamplingParams(
        temperature=0.0,
        max_tokens=len(tokens),
        trace_decode_token_ids=[int(token) for token in tokens],
        logprobs=-1,
        flat_logprobs=True,
        skip_reading_prefix_cache=True,
        ignore_eos=True,
        detokenize=False,
        output_kind=api.RequestOutputKind.FINAL_ONLY,
    )
