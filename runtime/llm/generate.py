"""The loop that turns logits into streamed text."""

from __future__ import annotations

from collections.abc import Iterator
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
        self, model: LanguageModel, prompt: ChatPrompt, logits: npt.NDArray[np.float32], options: SamplingOptions
    ) -> None:
        self._model, self._prompt, self._logits, self._options = model, prompt, logits, options
        self._pieces = self._generate()
        self.ids: list[int] = []
        self.finish: Finish | None = None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _generate(self) -> Iterator[str]:
        sampler, decoder, stops = Sampler(self._options), self._prompt.stream(), StopFilter(self._options.stop)
        while True:
            token = sampler.next(self._logits, self.ids)
            if token in self._prompt.eos_ids:
                self.finish = "end"
                break
            self.ids.append(token)
            if piece := stops.push(decoder.push(token)):
                yield piece
            if stops.stopped:
                self.finish = "stop"
                break
            if len(self.ids) == self._options.max_tokens or self._model.position == self._model.capacity:
                self.finish = "length"
                break
            self._logits = self._model.append(self._model.embed([token]))
        if piece := stops.push(decoder.finish()) + stops.finish():
            yield piece
