"""What the runtime asks of a language model, whichever engine runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]


class LanguageModel(Protocol):
    """A decoder that remembers what was appended to it, up to `capacity` tokens."""

    @property
    def capacity(self) -> int:
        """Tokens that fit: visual tokens, prompt and answer together."""

    @property
    def position(self) -> int:
        """Tokens appended so far."""

    def embed(self, ids: Sequence[int]) -> Float32Array:
        """Embeddings [len(ids), D] of tokens, in the memory from which `append` takes them."""

    def append(self, embeds: Float32Array) -> Float32Array:
        """Append [S, D], S >= 1; returns the logits [vocabulary] of the token to come.

        Raises UsageError where the tokens do not fit, EngineError where the engine fails; both leave `position` as it
        was.
        """

    def rewind(self, position: int) -> None:
        """Forget what was appended after `position`, so that several questions can share one prefix."""

    def worker(self) -> LanguageModel:
        """Another one on the same weights that has appended nothing yet, to be used beside this one.

        Raises EngineError where the engine cannot.
        """
