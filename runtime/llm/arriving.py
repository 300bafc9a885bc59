"""The tokens of an answer that an engine with a loop of its own sends, some at a time."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from storm_edge.runtime.llm.base import Finish


class ArrivingTokens(ABC):
    """Implements `TokenStream`, but for how tokens come and what was `reused`.

    It ends at one of `ends`, which it does not give out, behind `most` tokens, or where the engine stops. What a
    subclass receives goes into `_waiting`; `_final` says that nothing more comes. `_cancel` ends the request.
    """

    reused: int
    _cancel: weakref.finalize[..., Any]

    def __init__(self, ends: Collection[int], most: int) -> None:
        self._ends, self._most = ends, most
        self._waiting: list[int] = []
        self._final = False
        self.ids: list[int] = []
        self.finish: Finish | None = None

    def __iter__(self) -> ArrivingTokens:
        return self

    def __next__(self) -> int:
        if self.finish is not None:
            raise StopIteration
        while not self._waiting and not self._final:
            self._more()
        token = self._waiting.pop(0) if self._waiting else None
        if token is None or token in self._ends:
            self._end("end" if token is not None or len(self.ids) < self._most else "length")
            raise StopIteration
        self.ids.append(token)
        if len(self.ids) == self._most:
            self._end("length")
        return token

    @abstractmethod
    def _more(self) -> Any:
        """Wait for tokens."""

    def _end(self, finish: Finish) -> None:
        self.finish = finish
        self._cancel()
