"""The language model run by vLLM's AsyncLLM, which owns loop, sampler and cache, from a Hugging Face folder.

A prompt goes as embeddings, all of it: where ids and embeddings are mixed, the cache's keys do not say which is which.
Of embeddings every block's key holds the SHA-256 of its rows, so that the next question finds its video computed, and
never another video's. Names and parameters: vllm/v1/engine/async_llm.py. No GPU of ours has run it.
"""

from __future__ import annotations

import copy
import secrets
import weakref
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.arriving import ArrivingTokens
from storm_edge.runtime.llm.background import Background
from storm_edge.runtime.llm.base import Float32Array, Generator
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.language_folder import language_folder
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual, splice
from storm_edge.runtime.llm.vllm_package import package_names
from storm_edge.runtime.llm.vllm_request import engine_arguments, folder_dtype, forcing, sampling
from storm_edge.runtime.sessions.device import HOST, Device, Tensor

T = TypeVar("T")


def open_generator(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> Generator:
    """The language model of an engine; raises EngineError where the engine is not for this machine or not whole."""
    folder = language_folder(bundle, record)
    embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    capacity = record.max_length or bundle.config.llm.max_position_embeddings
    return VllmGenerator(folder, embedding, capacity, record.tp)


class VllmGenerator:
    """Implements `Generator`. Its streams go on beside each other."""

    device: Device = HOST

    def __init__(self, folder: Path, embedding: EmbeddingTable, capacity: int, ranks: int = 1) -> None:
        """Load the model in `folder` onto `ranks` GPUs; raises EngineError where it cannot be loaded."""
        self._dtype = folder_dtype(folder)
        self._embedding, self._capacity = embedding, capacity
        self._api = package_names()
        self._engine = _Engine(self._api, engine_arguments(self._api, folder, self._dtype, capacity, ranks))

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self._capacity

    def visual_rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens [1, frames, n, D] as rows of a prompt, float32 in host memory."""
        return flatten_visual(self.device, self._embedding.rows, visual, newline)

    def start(self, prompt: SplicedPrompt, options: SamplingOptions, ends: Collection[int]) -> VllmStream:
        """Send a prompt and wait for its first token."""
        length = self._length(prompt, 1)
        most = min(options.max_tokens, self._capacity - length)
        params = sampling(self._api, options, most, ends)
        return VllmStream(self._engine, self._rendered(prompt), params, ends, most)

    def forced(self, prompt: SplicedPrompt, tokens: Sequence[int]) -> Float32Array:
        """Logits [len(tokens), vocabulary] before each of `tokens`, which vLLM replays as the answer."""
        self._length(prompt, len(tokens))
        outputs = self._engine.generate(self._rendered(prompt), forcing(self._api, tokens))
        answer = self._engine.next(outputs).outputs[0]
        if list(answer.token_ids) != [int(token) for token in tokens]:
            raise EngineError("vLLM did not follow the tokens that it was given: report it with vLLM's version.")
        found = answer.logprobs
        rows = np.full((len(tokens), self._embedding.vocab_size), np.nan, np.float32)
        for row, begin, end in zip(rows, found.start_indices, found.end_indices, strict=True):
            row[found.token_ids[begin:end]] = found.logprobs[begin:end]
        if np.isnan(rows).any():
            raise EngineError("vLLM gave no logits for some tokens: build its engine with a wider --llm-precision.")
        return rows

    def worker(self) -> VllmGenerator:
        """The same engine again: it serves several requests at once."""
        return copy.copy(self)

    def _length(self, prompt: SplicedPrompt, answer: int) -> int:
        """Tokens of a prompt; raises UsageError where they and `answer` more do not fit."""
        length = len(prompt.before) + len(prompt.rows) + len(prompt.after)
        if length + answer > self._capacity:
            raise UsageError(
                f"the prompt has {length} tokens, {len(prompt.rows)} of them visual, the language model holds"
                f" {self._capacity} with the answer: shorten the question, take fewer frames or add temporal sampling."
            )
        return length

    def _rendered(self, prompt: SplicedPrompt) -> Any:
        """A prompt's embeddings [S, D] in the model's type, as vLLM takes them."""
        import torch  # the package's own; it takes no other tensors

        rows = self.device.host(splice(self.device, self._embedding.rows, prompt))
        return self._api.embeds_input(torch.from_numpy(rows).to(getattr(torch, self._dtype)))


class VllmStream(ArrivingTokens):
    """Implements `TokenStream`. A stream that nobody holds any more is cancelled."""

    def __init__(self, engine: _Engine, rendered: Any, params: Any, ends: Collection[int], most: int) -> None:
        super().__init__(ends, most)
        self._engine = engine
        self._outputs = engine.generate(rendered, params)
        self._cancel = weakref.finalize(self, engine.cancel, self._outputs)
        self._cancel.atexit = False  # the engine may be gone by then
        self.reused = int(self._more().num_cached_tokens or 0)

    def _more(self) -> Any:
        """Wait for tokens; returns what came with them."""
        output = self._engine.next(self._outputs)
        self._waiting += output.outputs[0].token_ids
        self._final = output.finished
        return output


class _Engine:
    """AsyncLLM and the loop it lives in; both end with the last generator and stream that hold it."""

    def __init__(self, api: Any, arguments: Any) -> None:
        try:
            engine = api.AsyncLLM.from_engine_args(arguments)
        # The package raises what its engine's process died of, which has no base of its own.
        except Exception as e:
            raise EngineError(
                f"vLLM cannot load {arguments.model} ({_line(e)}): see `storm doctor`, close what else uses the GPU's"
                " memory, or build with a narrower --llm-precision or a larger --tp."
            ) from e
        self._engine, self._loop = engine, Background()
        weakref.finalize(self, _shut_down, engine, self._loop)

    def generate(self, rendered: Any, params: Any) -> Any:
        """Outputs of a request, an asynchronous generator; it is sent when the first is asked for."""
        return self._engine.generate(rendered, params, secrets.token_hex(8))

    def next(self, outputs: Any) -> Any:
        """The next output of a request; raises EngineError where it failed."""
        return self._wait(outputs.__anext__)

    def cancel(self, outputs: Any) -> None:
        """End a request, whether it is still computed or not."""
        self._loop.send(outputs.aclose())

    def _wait(self, coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def called() -> T:
            return await coroutine()

        try:
            return self._loop.wait(called())
        except Exception as e:
            raise EngineError(f"vLLM: {_line(e) or type(e).__name__}: load the engine again, or see its log.") from e


def _shut_down(engine: Any, loop: Background) -> None:
    engine.shutdown()
    loop.stop()


def _line(error: object) -> str:
    return " ".join(str(error).split())
