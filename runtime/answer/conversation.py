"""What was said about a video, and whose turn it is on a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.prompt import Message


class Said(Protocol):
    """An answer, as far as it was read."""

    text: str


class Conversation:
    """Questions and what was read of their answers; the video stands before the first question."""

    def __init__(self) -> None:
        self._turns: list[tuple[str, Said]] = []

    def asking(self, text: str) -> list[Message]:
        """The messages so far with one more question."""
        said = [(Message("user", question), Message("assistant", answer.text)) for question, answer in self._turns]
        messages = [message for turn in said for message in turn] + [Message("user", text)]
        return [Message("user", messages[0].text, video=True), *messages[1:]]

    def add(self, question: str, answer: Said) -> None:
        """Remember a turn. What is read of its answer later still counts."""
        self._turns.append((question, answer))


class Turns:
    """One language model has one sequence of tokens, so whoever computes holds it alone.

    A second caller is refused rather than kept waiting: a wait would hide that two threads answer in one sequence.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the pipeline for a block; raises UsageError at once where something else does."""
        if not self._lock.acquire(blocking=False):
            raise UsageError(
                "this pipeline is computing for another call, and takes one at a time: give every thread its own"
                " (pipeline.worker()), or let them take turns (Workers)."
            )
        try:
            yield
        finally:
            self._lock.release()
