"""The loop that turns logits into streamed text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.llm.base import LanguageModel
from storm_edge.runtime.llm.detokenize import StopFilter
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.llm.sampling import Sampler, SamplingOptions

Finish = Literal["end", "stop", "length"]


class Generation:
    """One answer: iterate for its pieces, which never split a character and never show a stop string.

    `ids` are the tokens so far, without the one that ended the answer. `finish` says why it ended: the model did
    ("end"), a stop string came ("stop"), or max_tokens or the engine's capacity was reached ("length").
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: ChatPrompt,
        logits: npt.NDArray[np.float32],
        options: SamplingOptions,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`check` is called before the model goes on, and raises where its sequence is no longer this answer's."""
        self._model, self._prompt, self._logits, self._options = model, prompt, logits, options
        self._check = check
        self._sampler, self._text, self._stops = Sampler(options), prompt.stream(), StopFilter(options.stop)
        self._appended = 0  # of `ids`
        self.ids: list[int] = []
        self.finish: Finish | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.finish is None:
            if piece := self._step():
                return piece
        if piece := self._stops.push(self._text.finish()) + self._stops.finish():
            return piece
        raise StopIteration

    def _step(self) -> str:
        """Draw one token; returns the text that became certain."""
        if self._appended < len(self.ids):
            self._check()
            self._logits = self._model.append(self._model.embed(self.ids[-1:]))
            self._appended += 1
        token = self._sampler.next(self._logits, self.ids)
        if token in self._prompt.eos_ids:
            self.finish = "end"
            return ""
        self.ids.append(token)
        piece = self._stops.push(self._text.push(token))
        if self._stops.stopped:
            self.finish = "stop"
        elif len(self.ids) == self._options.max_tokens or self._model.position == self._model.capacity:
            self.finish = "length"
        return piece
