"""From a stream of tokens to streamed text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from storm_edge.runtime.llm.base import TokenStream
from storm_edge.runtime.llm.detokenize import StopFilter, StreamDecoder


class Generation:
    """One answer: iterate for its pieces, which never split a character and never show a stop string."""

    def __init__(self, tokens: TokenStream, text: StreamDecoder, stops: Iterable[str]) -> None:
        self._tokens, self._text, self._stops = tokens, text, StopFilter(stops)
        self.cancelled = False  # set from any thread, it ends the answer before the next token

    @property
    def ids(self) -> list[int]:
        """The tokens so far, without the one that ended the answer."""
        return self._tokens.ids

    @property
    def finish(self) -> Literal["end", "stop", "length"] | None:
        """Why it ended: the model did, a stop string came, or max_tokens or the engine's capacity was reached."""
        return "stop" if self._stops.stopped else self._tokens.finish

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while self.finish is None and not self.cancelled:
            token = next(self._tokens, None)
            if token is not None and (piece := self._stops.push(self._text.push(token))):
                return piece
        if piece := self._stops.push(self._text.finish()) + self._stops.finish():
            return piece
        raise StopIteration
