"""Whose turn it is on a pipeline: one caller at a time, and of all answers only the newest goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storm_edge.runtime.errors import UsageError


class Turns:
    """One language model has one sequence of tokens, so whoever computes holds it alone.

    A second caller is refused rather than kept waiting: a wait would hide that two threads answer in one sequence.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest = 0

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

    def begin(self) -> Callable[[], None]:
        """Make all earlier answers stale; what is returned raises UsageError once this one is."""
        self._newest += 1
        turn = self._newest

        def check() -> None:
            if turn != self._newest:
                raise UsageError(
                    "another question was asked on this pipeline before this answer was read to its end: read an answer"
                    " to its end first, or use another pipeline (pipeline.worker())."
                )

        return check
