"""The decoder on TensorRT. Written from the documentation; no machine of ours has run it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.base import Float32Array, Generator, LanguageModel
from storm_edge.runtime.llm.decoder import StepwiseDecoder
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.stepwise import StepwiseGenerator
from storm_edge.runtime.sessions.tensorrt import TensorRTSession, open_session


def open_generator(bundle: Bundle, record: EngineRecord, threads: int | None) -> Generator:
    """The language model of an engine; raises as `open_session`."""
    session = open_session(bundle, record, "decoder", threads)
    embedding = EmbeddingTable.open(bundle.file(bundle.manifest.embedding))
    capacity, chunk = session.largest("past_key_0")[2], session.largest("inputs_embeds")[1]
    return StepwiseGenerator(TensorRTDecoder(session, bundle.config.llm, embedding, capacity, chunk))


class TensorRTDecoder(StepwiseDecoder):
    """Implements `LanguageModel`: the KV cache stays on the device, past and present are one buffer."""

    def __init__(
        self, session: TensorRTSession, config: LanguageConfig, embedding: EmbeddingTable, capacity: int, chunk: int
    ) -> None:
        """`capacity` is the engine's fixed cache length, `chunk` the most tokens of its profile."""
        super().__init__(embedding, capacity, chunk)
        self._session = session
        for i in range(config.num_hidden_layers):
            for kind in ("key", "value"):
                session.share(f"past_{kind}_{i}", f"present_{kind}_{i}")

    def embed(self, ids: Sequence[int]) -> Any:
        """float32 [len(ids), D] on the device, where visual tokens are, so that a prompt is joined there."""
        return self._session.to_device(self._embedding.rows(ids))

    def worker(self) -> LanguageModel:
        """Raises EngineError: TensorRT's execution context and its buffers belong to one caller."""
        raise EngineError(
            "a TensorRT engine has one set of buffers, so its weights cannot be shared by workers: load the bundle once"
            " for every worker."
        )

    def _run(self, embeds: Any, start: int) -> Float32Array:
        logits: Any = self._session.run(
            inputs_embeds=embeds[None],  # (1, S, D)
            position_ids=np.arange(start, start + len(embeds), dtype=np.int64)[None],
            write_indices=np.array([start], np.int64),
        )["logits"]
        return np.asarray(logits.get(), dtype=np.float32).reshape(-1)
