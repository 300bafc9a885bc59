"""The decoder on TensorRT. Written from the documentation; no machine of ours has run it yet.

An engine has one optimization profile for every number of tokens, or two: the first for one token, the second for
prefill. Each has a context of its own, so that a CUDA graph of the one-token step stays as it was captured.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.base import Generator, LanguageModel
from storm_edge.runtime.llm.decoder import StepwiseDecoder
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.sessions.cuda import CudaDevice
from storm_edge.runtime.sessions.device import Tensor
from storm_edge.runtime.sessions.tensorrt import open_engine
from storm_edge.runtime.sessions.tensorrt_engine import EngineContext, TensorRTEngine

GRAPH_SWITCH = "STORM_CUDA_GRAPH"  # "0" in the environment: every step is launched kernel by kernel


def open_generator(bundle: Bundle, record: EngineRecord, device: CudaDevice, threads: int | None) -> Generator:
    """The language model of an engine; raises as `open_engine`."""
    engine = open_engine(bundle, record, "decoder", device)
    embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    return StepwiseGenerator(TensorRTDecoder(engine, bundle.config.llm, embedding))


class TensorRTDecoder(StepwiseDecoder):
    """Implements `LanguageModel`: the KV cache stays on the device, past and present are one buffer.

    Its length is the engine's. Everything is bound once, and a step copies one token's embedding and its position.
    """

    def __init__(self, engine: TensorRTEngine, config: LanguageConfig, embedding: EmbeddingTable) -> None:
        """Raises EngineError where memory is short."""
        prefill = engine.profiles - 1
        smallest, _, largest = engine.sizes("inputs_embeds", prefill)
        super().__init__(embedding, engine.sizes("past_key_0")[2][2], engine.device, largest[1])
        self._cuda, self._type = engine.device, engine.dtype("inputs_embeds")
        self._least = smallest[1]
        self._captures = os.environ.get(GRAPH_SWITCH) != "0"
        self._step, self._prefill = engine.context(settled=self._captures), engine.context(prefill)
        self._embeds = self._cuda.empty(largest, self._type)  # (1, chunk, D)
        self._positions = self._cuda.empty(largest[:2], "int64")  # (1, chunk)
        self._start = self._cuda.empty((1,), "int64")
        self._logits = self._cuda.empty((1, 1, config.vocab_size), "float32")
        self._cache: dict[str, Any] = {}
        for name in (f"{kind}_{i}" for i in range(config.num_hidden_layers) for kind in ("key", "value")):
            past = f"past_{name}"
            # Zeros: masked positions are multiplied by zero, which NaN of unset memory survives.
            self._cache[past] = self._cache[f"present_{name}"] = self._cuda.zeros(
                engine.sizes(past)[2], engine.dtype(past)
            )
        for context, count in ((self._step, 1), (self._prefill, largest[1])):
            self._bind(context, count)

    def worker(self) -> LanguageModel:
        """Raises EngineError: TensorRT's execution context and its buffers belong to one caller."""
        raise EngineError(
            "a TensorRT engine has one set of buffers, so its weights cannot be shared by workers: load the bundle once"
            " for every worker."
        )

    def _bind(self, context: EngineContext, count: int) -> None:
        given = {"inputs_embeds": self._embeds[:, :count], "position_ids": self._positions[:, :count]}
        for name, array in (given | {"write_indices": self._start, "logits": self._logits} | self._cache).items():
            context.bind(name, array)

    def _run(self, embeds: Tensor, start: int) -> Tensor:
        count = len(embeds)
        if 1 < count < self._least:  # too few for the profile of prefill
            return [self._run(embeds[i : i + 1], start + i) for i in range(count)][-1]
        cuda = self._cuda
        with cuda:
            cuda.write(self._embeds[0, :count], cuda.cast(embeds, self._type))
            cuda.write(self._positions[0, :count], np.arange(start, start + count, dtype=np.int64))
            cuda.write(self._start, np.array([start], np.int64))
            if count > 1:
                self._prefill.resize("inputs_embeds", (1, count, self._embeds.shape[2]))
                self._prefill.resize("position_ids", (1, count))
                self._prefill.run()
            elif self._captures:
                self._step.run_captured()
            else:
                self._step.run()
            logits: Tensor = self._logits.reshape(-1).copy()  # the next step writes into the same buffer
            return logits
