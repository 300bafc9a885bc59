"""What the runtime asks of a language model, whichever runner runs it.

`Generator` is what a pipeline, verification and calibration hold. A runner that owns loop, sampler and key-value cache
implements it directly; one that computes step by step implements `LanguageModel`, which `stepwise` drives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.sessions.device import Device, Tensor

Float32Array = npt.NDArray[np.float32]
Finish = Literal["end", "length"]


class TokenStream(Protocol):
    """The tokens of one answer, computed when they are asked for.

    Asking for one raises UsageError where the generator has gone on to another prompt and cannot compute this answer
    any more, EngineError where the engine fails.
    """

    ids: list[int]  # so far, without the token that ended the answer
    finish: Finish | None  # the model ended it, or max_tokens or the capacity did; None while it goes on
    reused: int  # positions of the prompt that had been computed before

    def __iter__(self) -> Iterator[int]: ...
    def __next__(self) -> int: ...


class Generator(Protocol):
    """Prompts with visual tokens in, tokens out. One caller at a time."""

    @property
    def device(self) -> Device:
        """Whose memory visual tokens are taken from."""

    @property
    def capacity(self) -> int:
        """Tokens that fit: visual tokens, prompt and answer together."""

    def visual_rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens [1, frames, n, D] of `device` as rows of a prompt [frames * n, D], in the same memory.

        Line ends stand among them where `newline` says so.
        """

    def start(self, prompt: SplicedPrompt, options: SamplingOptions, ends: Collection[int]) -> TokenStream:
        """Prefill a prompt, from where an earlier one had the same positions; tokens in `ends` end the answer.

        Raises UsageError where the prompt does not fit, and then earlier streams go on; EngineError.
        """

    def forced(self, prompt: SplicedPrompt, tokens: Sequence[int]) -> Float32Array:
        """Logits [len(tokens), vocabulary] of the token to come, after the prompt and after each of `tokens` but the
        last, nothing reused; in host memory. Raises UsageError where they do not fit, EngineError.
        """

    def worker(self) -> Generator:
        """Another one on the same weights with a sequence of its own, to be used beside this one.

        Raises EngineError where the engine cannot.
        """


class LanguageModel(Protocol):
    """A decoder that remembers what was appended to it, up to `capacity` tokens."""

    @property
    def device(self) -> Device:
        """Where embeddings are taken from and logits given."""

    @property
    def capacity(self) -> int:
        """Tokens that fit: visual tokens, prompt and answer together."""

    @property
    def position(self) -> int:
        """Tokens appended so far."""

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embeddings [len(ids), D] of tokens, on the device."""

    def append(self, embeds: Tensor) -> Tensor:
        """Append [S, D] of the device, S >= 1; returns the logits [vocabulary] of the token to come, which stay as they
        are when more is appended.

        Raises UsageError where the tokens do not fit, EngineError where the engine fails; both leave `position` as it
        was.
        """

    def rewind(self, position: int) -> None:
        """Forget what was appended after `position`, so that several questions can share one prefix."""

    def worker(self) -> LanguageModel:
        """Another one on the same weights that has appended nothing yet; raises EngineError where the engine cannot."""
