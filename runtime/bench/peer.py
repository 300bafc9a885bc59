"""Another program that answers the same questions, in a process of its own: its threads and memory are not ours.

It is told a number of frames on a line of its stdin, and answers with a line of JSON on stdout: the fields of a `Run`,
or `{"error": "..."}`. The first line it prints, once it has loaded, is `{}`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from storm_edge.runtime.bench.measuring import Run
from storm_edge.runtime.errors import UsageError


class Peer:
    """A running peer, to be used as a context."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """Start it and wait until it has loaded; raises UsageError with its reason where it does not."""
        self._name = name
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )
        self._answer()

    def ask(self, frames: int) -> Run:
        """One question about so many frames; raises UsageError where it fails."""
        return Run(**self.exchange(str(frames)))

    def exchange(self, line: str) -> dict[str, Any]:
        """What it answers to a line; raises UsageError where it fails."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # why it ended is read below
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        return self._answer()

    @property
    def process(self) -> int:
        """Its id."""
        return self._process.pid

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().rpartition("\n")[2]
            raise UsageError(f"{self._name} ended ({said or 'without a word'}): see to that, or measure without it.")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise UsageError(f"{self._name}: {found['error']}")
        return found

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()
