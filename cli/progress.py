"""What a command says while it works: a spinner on a terminal, a log with -v, and the seconds of every step."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from storm_edge.cli.printing import echo, one_line

if TYPE_CHECKING:
    from rich.progress import Progress

_WIDEST = 200  # characters of a step's name
LATEST = 1.0  # seconds that a command may take without a sign of life
_log = logging.getLogger("storm_edge.cli")


class Steps:
    """Call it with the name of the step now beginning; `seconds` has what every step took."""

    def __init__(self, verb: str, shown: Progress | None) -> None:
        self._verb, self._shown = verb, shown
        self._task = None if shown is None else shown.add_task(verb)
        self._name: str | None = None
        self._begun = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        """Begin a step; the one before ends."""
        self.end()
        self._name = name
        _log.info("%s: %s", self._verb, name)
        self.detail(name)

    def detail(self, text: str) -> None:
        """Show what the step is at, without counting it as one."""
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, description=one_line(f"{self._verb}: {text}", _WIDEST))

    def end(self) -> None:
        """End the last step."""
        now = time.perf_counter()
        if self._name is not None:
            took = now - self._begun
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + took
            _log.info("%s: %s took %.3f s", self._verb, self._name, took)
        self._name, self._begun = None, now


def say(ctx: click.Context, text: str) -> None:
    """Print what a person wants to know after a command, unless -q was given."""
    if not ctx.obj["quiet"]:
        echo(text)


def listing(names: list[str], most: int = 5) -> str:
    """Some names in one line, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@contextmanager
def progress(ctx: click.Context, verb: str) -> Iterator[Steps]:
    """Yield the steps of a command; a terminal's stderr shows them when the command takes more than a second."""
    with ExitStack() as stack:
        shown = None
        # A log and a spinner would write over each other.
        if sys.stderr.isatty() and not ctx.obj["quiet"] and not ctx.obj["verbose"]:
            shown = stack.enter_context(_spinner())
        steps = Steps(verb, shown)
        yield steps
        steps.end()


@contextmanager
def _spinner() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    shown = Progress(*columns, console=Console(stderr=True), transient=True)
    timer = threading.Timer(LATEST, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield shown
    finally:
        timer.cancel()
        timer.join()  # a spinner that begins just now must begin before it is stopped
        shown.stop()
