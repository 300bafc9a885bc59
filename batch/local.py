"""Processes on this machine that answer, each with an engine of its own and cores of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from typing import IO

from storm_edge.batch.library import Item
from storm_edge.batch.predictor import Asking
from storm_edge.batch.rows import Row
from storm_edge.runtime.errors import EngineError, StormError

AHEAD = 2  # items a worker has: one that it answers about, one that it decodes
TRIES = 2  # how often an item may be there when a worker ends
LAST_WORDS = 300  # bytes of what an ended worker wrote that are told
LOADS = 3  # workers one after the other that may end before one has loaded the bundle


@dataclass
class _Task:
    item: Item
    ended: int = 0  # workers that ended while they had it

    @property
    def suspect(self) -> bool:
        return self.ended > 0


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    errors: IO[bytes]  # what it wrote to stderr
    ready: bool = False
    tasks: deque[_Task] = field(default_factory=deque)

    def takes(self, task: _Task) -> bool:
        """Whether it has room for a task; a suspect is alone with it, so that it is known whose fault an end is."""
        return self.ready and len(self.tasks) < (1 if task.suspect or any(t.suspect for t in self.tasks) else AHEAD)


def answer_locally(
    asking: Asking,
    items: Iterable[Item],
    workers: int,
    failed: Callable[[Item, str, bool], Sequence[Row]],
) -> Iterator[Sequence[Row]]:
    """The rows of each item as they come, from `workers` processes; nothing where a second went by without any.

    `failed` makes the rows of an item that ended its process, from what happened and whether that may pass. Raises
    what a worker raised when it loaded the bundle. The processes end with the iteration, or with this process.
    """
    threads = asking.threads or max(1, len(os.sched_getaffinity(0)) // workers)
    pool = _Pool(replace(asking, threads=threads), workers)
    waiting, coming = deque[_Task](), iter(items)
    try:
        while True:
            pool.give(waiting, coming)
            if not pool.busy and not waiting:
                return
            yield from pool.collect(waiting, failed)
    finally:
        pool.close()


class _Pool:
    def __init__(self, asking: Asking, count: int):
        self._asking = asking
        self._unloaded = 0  # workers that ended so since one was ready
        self._workers = [self._start() for _ in range(count)]

    @property
    def busy(self) -> bool:
        return any(worker.tasks or not worker.ready for worker in self._workers)

    def give(self, waiting: deque[_Task], coming: Iterator[Item]) -> None:
        """Hand out tasks, those that wait first, and as evenly as they come."""
        while True:
            if not waiting:
                item = next(coming, None)
                if item is None:
                    return
                waiting.append(_Task(item))
            free = [worker for worker in self._workers if worker.takes(waiting[0])]
            if not free:
                return
            worker = min(free, key=lambda w: len(w.tasks))
            task = waiting.popleft()
            worker.tasks.append(task)
            try:
                worker.connection.send(task.item)
            except OSError:
                return  # it has ended, which `collect` finds

    def collect(
        self, waiting: deque[_Task], failed: Callable[[Item, str, bool], Sequence[Row]]
    ) -> Iterator[Sequence[Row]]:
        """Wait a second for rows, and for processes that end."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), timeout=1.0):
            worker = by_connection[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._replace(worker, waiting, failed)
                continue
            if isinstance(message, StormError):
                raise message
            if not worker.ready:
                worker.ready, self._unloaded = True, 0
                continue
            worker.tasks.popleft()
            yield message
        yield ()

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
            worker.process.wait()
            worker.connection.close()
            worker.errors.close()

    def _replace(
        self, worker: _Worker, waiting: deque[_Task], failed: Callable[[Item, str, bool], Sequence[Row]]
    ) -> Iterator[Sequence[Row]]:
        """A new process for one that has ended, and its tasks again, or their rows where they were tried enough."""
        worker.connection.close()
        code = worker.process.wait()
        how = _how(code, worker.errors)
        worker.errors.close()
        self._unloaded += not worker.ready
        if self._unloaded >= LOADS:
            raise EngineError(f"a worker ended while it loaded the bundle ({how}): take fewer --workers.")
        for task in reversed(worker.tasks):
            task.ended += 1
            if task.ended < TRIES:
                waiting.appendleft(task)
        for task in worker.tasks:
            if task.ended >= TRIES:
                # The kernel kills where memory is short, which another time it may not be.
                passing = code == -signal.SIGKILL
                yield failed(task.item, f"the process that looked at it ended ({how}), twice", passing)
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "storm_edge.batch.worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
            )
        connection = Connection(ours.detach())
        connection.send((os.getpid(), self._asking))
        return _Worker(process, connection, errors)


def _how(code: int, errors: IO[bytes]) -> str:
    """How a process ended, and the end of the last line that it wrote."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_WORDS))
    said = " ".join(errors.read().decode(errors="replace").strip().rpartition("\n")[2].split())
    if code >= 0:
        how = f"exit status {code}"
    else:
        try:
            how = signal.Signals(-code).name
        except ValueError:
            how = f"signal {-code}"
    return f"{how}: {said}" if said else how
