"""Several pipelines on the same weights, lent to the threads of a server one caller at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # until Python 3.11 not the built-in one
from contextlib import contextmanager
from types import TracebackType

from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.errors import BusyError, UsageError

_CLOSED = "these workers are closed: load the bundle again."


class Workers:
    """`count` pipelines that share `pipeline`'s weights; at most `waiting` callers stand in line, first come first
    served. Raises UsageError for numbers that mean nothing, EngineError where an engine cannot share its weights.
    """

    def __init__(self, pipeline: Pipeline, count: int = 1, *, waiting: int = 16) -> None:
        if count < 1 or waiting < 0:
            raise UsageError(f"{count} workers with {waiting} waiting make no sense: give 1 or more, and 0 or more.")
        self._lock = threading.Lock()
        self._free = [pipeline, *(pipeline.worker() for _ in range(count - 1))]
        self._line: deque[Future[Pipeline]] = deque()
        self._count, self._waiting, self._closed = count, waiting, False

    @contextmanager
    def take(self, timeout: float | None = None) -> Iterator[Pipeline]:
        """Lend a pipeline for a `with` block, within which its answers are read to their end.

        Waits in line for at most `timeout` seconds, None: without limit. Raises BusyError where the line is full or the
        time is up, UsageError once closed.
        """
        pipeline = self._wait(timeout)
        try:
            yield pipeline
        finally:
            self._give_back(pipeline)

    def close(self) -> None:
        """Refuse those who wait and those who come; what is lent is given back as usual. Memory goes with the last."""
        with self._lock:
            self._closed = True
            self._free.clear()
            while self._line:
                self._line.popleft().set_exception(UsageError(_CLOSED))

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, timeout: float | None) -> Pipeline:
        with self._lock:
            if self._closed:
                raise UsageError(_CLOSED)
            if self._free:
                return self._free.pop()
            if len(self._line) >= self._waiting:
                raise BusyError(
                    f"all {self._count} workers answer and {len(self._line)} callers wait already: try again later."
                )
            place: Future[Pipeline] = Future()
            self._line.append(place)
        try:
            return place.result(timeout)
        except BaseException as e:
            with self._lock:
                if place in self._line:
                    self._line.remove(place)
            if place.done() and place.exception() is None:  # handed over between the two
                self._give_back(place.result())
            if isinstance(e, FutureTimeout):
                raise BusyError(
                    f"no worker became free within {timeout} seconds: try again later, or take more workers."
                ) from e
            raise

    def _give_back(self, pipeline: Pipeline) -> None:
        with self._lock:
            if self._line:
                self._line.popleft().set_result(pipeline)
            elif not self._closed:
                self._free.append(pipeline)
