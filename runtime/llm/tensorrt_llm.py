"""The language model compiled by TensorRT-LLM 1.2, run by its C++ Executor, which owns loop, sampler and cache.

It takes token ids, not embeddings: the visual tokens of a prompt are a table that goes with the request, and the ids
from `vocab_size` upward are its rows. Its cache reuses blocks of equal ids, so every visual id carries a second number,
made of the tokens themselves and the bundle: the next question finds its video computed, and never another video's.
Names and parameters: cpp/tensorrt_llm/nanobind/executor/. No GPU of ours has run it.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
import weakref
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.arriving import ArrivingTokens
from storm_edge.runtime.llm.base import Float32Array, Generator
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual
from storm_edge.runtime.llm.tensorrt_llm_engine import EngineLimits, engine_folder
from storm_edge.runtime.llm.tensorrt_llm_package import executor_bindings, worker_program
from storm_edge.runtime.sessions.device import HOST, Device, Tensor

_POLL = timedelta(milliseconds=200)  # between looks at whether the user has pressed Ctrl-C
_MEMORY_SHARE = 0.9  # of the GPU memory that weights leave, for the cache


def open_generator(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> Generator:
    """The language model of an engine; raises EngineError where the engine is not for this machine or not whole."""
    folder = engine_folder(bundle, record)
    embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    return TensorRtLlmGenerator(folder, embedding, bundle.sha256)


class TensorRtLlmGenerator:
    """Implements `Generator`. Its streams go on beside each other."""

    device: Device = HOST

    def __init__(self, folder: Path, embedding: EmbeddingTable, identity: str) -> None:
        """Load the engine in `folder`; `identity` is the bundle's. Raises EngineError where it cannot be loaded."""
        self._limits = EngineLimits.read(folder)
        self._embedding, self._identity = embedding, identity
        self._api = api = executor_bindings()
        config = api.ExecutorConfig(
            max_beam_width=1,
            kv_cache_config=api.KvCacheConfig(enable_block_reuse=True, free_gpu_memory_fraction=_MEMORY_SHARE),
            enable_chunked_context=True,
            gather_generation_logits=True,
            parallel_config=self._ranks() if self._limits.ranks > 1 else None,
        )
        try:
            self._executor = api.Executor(folder, api.ModelType.DECODER_ONLY, config)
        # The bindings raise what C++ threw, which has no base of its own.
        except Exception as e:
            raise EngineError(
                f"TensorRT-LLM cannot load {folder} ({_line(e)}): build the engine again on this machine, or see"
                " `storm doctor`."
            ) from e
        self._sent: tuple[Tensor, Any, int] | None = None  # rows of the last prompt, their table, their number

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self._limits.sequence

    def visual_rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens [1, frames, n, D] as rows of a prompt, float32 in host memory."""
        return flatten_visual(self.device, self._embedding.rows, visual, newline)

    def start(self, prompt: SplicedPrompt, options: SamplingOptions, ends: Collection[int]) -> TensorRtLlmStream:
        """Send a prompt and wait for its first token."""
        if options.repetition_penalty != 1:
            raise UsageError(
                "repetition_penalty: TensorRT-LLM counts the prompt's tokens as repeated too, so answers would differ"
                " from other engines': leave it at 1, or use another engine."
            )
        ids = self._check(prompt)
        most = min(options.max_tokens, self.capacity - len(ids))
        request = self._request(prompt, ids, most, self._sampling(options), ends)
        return TensorRtLlmStream(self._executor, request, ends, most, self._limits.tokens_per_block)

    def forced(self, prompt: SplicedPrompt, tokens: Sequence[int]) -> Float32Array:
        """Logits [len(tokens), vocabulary] before each of `tokens`: a request of one token each."""
        rows = []
        number = secrets.randbits(63) | 1  # no earlier prompt has it, so only what these requests share is reused
        for i in range(len(tokens)):
            longer = SplicedPrompt(prompt.before, prompt.rows, [*prompt.after, *tokens[:i]], prompt.video)
            ids = self._check(longer)
            greedy = self._sampling(SamplingOptions())
            request = self._request(longer, ids, 1, greedy, (), logits=True, number=number)
            result = _wait(self._executor, self._executor.enqueue_request(request))[-1].result
            logits = result.generation_logits  # (1, 1, vocabulary, filled up to a multiple of the ranks)
            if logits is None:
                raise EngineError("TensorRT-LLM gave no logits: build the engine again with this version.")
            rows.append(logits.float().cpu().numpy().reshape(-1)[: self._limits.vocabulary])
        return np.stack(rows)

    def worker(self) -> TensorRtLlmGenerator:
        """The same engine again: it serves several requests at once."""
        return copy.copy(self)

    def _check(self, prompt: SplicedPrompt) -> list[int]:
        """The ids of a prompt; raises UsageError where it does not fit."""
        visual = range(self._limits.vocabulary, self._limits.vocabulary + len(prompt.rows))
        ids = [*prompt.before, *visual, *prompt.after]
        for what, number, most in (
            ("visual tokens", len(visual), self._limits.visual),
            ("tokens", len(ids), min(self._limits.input, self.capacity - 1)),
        ):
            if number > most:
                raise UsageError(
                    f"the prompt has {number} {what}, this engine takes {most}: shorten the question, take fewer"
                    " frames, add temporal sampling, or build with a larger --max-length."
                )
        return ids

    def _request(
        self,
        prompt: SplicedPrompt,
        ids: list[int],
        most: int,
        sampling: Any,
        ends: Collection[int],
        *,
        logits: bool = False,
        number: int | None = None,
    ) -> Any:
        api, tuning = self._api, None
        if len(prompt.rows):
            table, own = self._table(prompt.rows)
            extra = [0] * len(prompt.before) + [number or own] * len(prompt.rows) + [0] * len(prompt.after)
            tuning = api.PromptTuningConfig(embedding_table=table, input_token_extra_ids=extra)
        return api.Request(
            input_token_ids=ids,
            max_tokens=most,
            streaming=not logits,
            sampling_config=sampling,
            output_config=api.OutputConfig(
                return_generation_logits=logits, exclude_input_from_output=True, return_perf_metrics=True
            ),
            end_id=min(ends, default=None),
            pad_id=min(ends, default=None),
            stop_words=[[token] for token in sorted(ends)] or None,
            prompt_tuning_config=tuning,
        )

    def _sampling(self, options: SamplingOptions) -> Any:
        if options.temperature == 0:
            return self._api.SamplingConfig(beam_width=1, top_k=1)
        # Theirs starts from the same seed every time unless it is given one.
        seed = secrets.randbits(63) if options.seed is None else options.seed
        return self._api.SamplingConfig(
            beam_width=1, top_k=options.top_k, top_p=options.top_p, temperature=options.temperature, seed=seed
        )

    def _table(self, rows: Tensor) -> tuple[Any, int]:
        """Visual tokens as the tensor [n, D] that goes with a request, in the engine's type, and their number."""
        if self._sent is None or self._sent[0] is not rows:
            import torch  # the package's own; its bindings take no other tensors

            kind = ml_dtypes.bfloat16 if self._limits.dtype == "bfloat16" else np.float16
            narrow = np.ascontiguousarray(HOST.host(rows), np.float32).astype(kind)
            digest = hashlib.sha256(self._identity.encode() + narrow.tobytes()).digest()
            table = torch.from_numpy(narrow.view(np.int16)).view(getattr(torch, self._limits.dtype))
            self._sent = rows, table, int.from_bytes(digest[:8], "little") | 1
        return self._sent[1], self._sent[2]

    def _ranks(self) -> Any:
        """One process a rank besides this one, which sends them the requests."""
        api = self._api
        return api.ParallelConfig(
            communication_type=api.CommunicationType.MPI,
            communication_mode=api.CommunicationMode.ORCHESTRATOR,
            orchestrator_config=api.OrchestratorConfig(
                is_orchestrator=True, worker_executable_path=str(worker_program())
            ),
        )


class TensorRtLlmStream(ArrivingTokens):
    """Implements `TokenStream`. A stream that nobody holds any more is cancelled."""

    def __init__(self, executor: Any, request: Any, ends: Collection[int], most: int, tokens_per_block: int) -> None:
        super().__init__(ends, most)
        self._executor = executor
        self._id = executor.enqueue_request(request)
        self._cancel = weakref.finalize(self, executor.cancel_request, self._id)
        self._cancel.atexit = False  # the executor may be gone by then
        metrics = self._more()
        blocks = metrics.kv_cache_metrics.num_reused_blocks if metrics is not None else 0
        self.reused = int(blocks) * tokens_per_block

    def _more(self) -> Any:
        """Wait for tokens; returns the request's metrics, or None."""
        result = None
        for response in _wait(self._executor, self._id):
            result = response.result
            self._waiting += result.output_token_ids[0]
            self._final = self._final or result.is_final
        if self._final:
            self._cancel.detach()  # there is nothing to cancel any more
        return result.request_perf_metrics if result is not None else None


def _wait(executor: Any, request: int) -> list[Any]:
    """The next responses to a request; raises EngineError where it failed."""
    responses: list[Any] = []
    while not responses:
        responses = executor.await_responses(request, _POLL)
    for response in responses:
        if response.has_error():
            raise EngineError(
                f"TensorRT-LLM: {_line(response.error_msg)}: see `storm doctor`, or build the engine again."
            )
    return responses


def _line(error: object) -> str:
    return " ".join(str(error).split())
