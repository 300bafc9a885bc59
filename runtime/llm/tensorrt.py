"""The decoder on TensorRT. Written from the documentation; no machine of ours has run it yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.llm.base import Float32Array, LanguageModel
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.sessions.tensorrt import TensorRTSession


class TensorRTDecoder:
    """Implements `LanguageModel`: the KV cache stays on the device, past and present are one buffer."""

    def __init__(
        self, session: TensorRTSession, config: LanguageConfig, embedding: EmbeddingTable, capacity: int, chunk: int
    ) -> None:
        """`capacity` is the engine's fixed cache length, `chunk` the most tokens of its profile."""
        self._session, self._config, self._embedding = session, config, embedding
        self._capacity, self._chunk, self._position = capacity, chunk, 0
        for i in range(config.num_hidden_layers):
            for kind in ("key", "value"):
                session.share(f"past_{kind}_{i}", f"present_{kind}_{i}")

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self._capacity

    @property
    def position(self) -> int:
        """Tokens appended so far."""
        return self._position

    def embed(self, ids: Sequence[int]) -> Any:
        """float32 [len(ids), D] on the device, where visual tokens are, so that a prompt is joined there."""
        return self._session.to_device(self._embedding.rows(ids))

    def append(self, embeds: Any) -> Float32Array:
        """Append [S, D] from host or device in chunks; returns the last position's logits, float32 [vocabulary]."""
        end = self._position + len(embeds)
        if end > self._capacity:
            raise UsageError(
                f"{end} tokens do not fit into the engine's {self._capacity}: take fewer frames, or build it again"
                " with a larger --max-length."
            )
        logits: Any = None
        for start in range(0, len(embeds), self._chunk):
            piece = embeds[start : start + self._chunk]
            first = self._position + start
            logits = self._session.run(
                inputs_embeds=piece[None],  # (1, S, D)
                position_ids=np.arange(first, first + len(piece), dtype=np.int64)[None],
                write_indices=np.array([first], np.int64),
            )["logits"]
        self._position = end
        return np.asarray(logits.get(), dtype=np.float32).reshape(-1)

    def rewind(self, position: int) -> None:
        """Forget what was appended after `position`."""
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}: {self._position} tokens were appended")
        self._position = position

    def worker(self) -> LanguageModel:
        """Raises EngineError: TensorRT's execution context and its buffers belong to one caller."""
        raise EngineError(
            "a TensorRT engine has one set of buffers, so its weights cannot be shared by workers: load the bundle once"
            " for every worker."
        )
