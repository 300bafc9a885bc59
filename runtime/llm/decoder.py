"""What every decoder that computes step by step does alike: embedding, position, capacity, chunks, rewinding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from storm_edge.runtime.config.sizes import CHUNK
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.sessions.device import Device, Tensor


class StepwiseDecoder(ABC):
    """Implements `LanguageModel` but for `worker`; a runner adds how one chunk is computed."""

    def __init__(self, embedding: EmbeddingTable, capacity: int, device: Device, chunk: int = CHUNK) -> None:
        self._embedding, self._capacity, self._chunk, self._position = embedding, capacity, chunk, 0
        self._device = device

    @property
    def device(self) -> Device:
        """Where embeddings are taken from and logits given."""
        return self._device

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self._capacity

    @property
    def position(self) -> int:
        """Tokens appended so far."""
        return self._position

    def embed(self, ids: Sequence[int]) -> Tensor:
        """float32 [len(ids), D]."""
        rows: Tensor = self._device.put(self._embedding.rows(ids))
        return rows

    def append(self, embeds: Tensor) -> Tensor:
        """Append [S, D] in chunks; returns the last position's logits, float32 [vocabulary]."""
        if len(embeds.shape) != 2 or embeds.shape[1] != self._embedding.width or not len(embeds):
            raise ValueError(f"embeds is {list(embeds.shape)}, expected [S, {self._embedding.width}] with S >= 1")
        start, end = self._position, self._position + len(embeds)
        if end > self._capacity:
            raise UsageError(
                f"{len(embeds)} more tokens after {start} do not fit the {self._capacity} of this engine:"
                " use fewer frames, a larger --sample, or a shorter question."
            )
        for offset in range(0, len(embeds), self._chunk):
            logits = self._run(embeds[offset : offset + self._chunk], start + offset)
        self._position = end
        return logits

    def rewind(self, position: int) -> None:
        """Forget what was appended after `position`."""
        if not 0 <= position <= self._position:
            raise ValueError(f"cannot rewind to {position}: {self._position} tokens were appended")
        self._position = position

    @abstractmethod
    def _run(self, embeds: Tensor, start: int) -> Tensor:
        """Compute a chunk [S, D] that begins at position `start`; logits of its last token, float32 [vocabulary]."""
