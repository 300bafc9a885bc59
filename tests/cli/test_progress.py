from __future__ import annotations

import os
import pty
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from storm_edge.cli import progress as module
from storm_edge.cli.progress import Steps, progress


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes stderr a terminal; gives what was written to it since. No fixture: pytest replaces stderr after those."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stderr", stream)

        def written() -> str:
            stream.flush()
            try:
                return os.read(ours, 1 << 20).decode()
            except BlockingIOError:
                return ""

        yield written
    os.close(ours)


def context(**switches: bool) -> Any:
    return SimpleNamespace(obj={"quiet": False, "verbose": False} | switches)


def test_steps_add_up_and_the_last_one_ends_with_the_command() -> None:
    steps = Steps("verb", None)
    steps("a")
    time.sleep(0.02)
    steps("b")
    steps("a")
    time.sleep(0.02)
    steps.end()
    assert list(steps.seconds) == ["a", "b"]
    assert 0.04 <= steps.seconds["a"] < 1 > steps.seconds["b"]


def test_a_command_that_is_done_at_once_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATEST", 60.0)
    with terminal(monkeypatch) as written:
        with progress(context(), "verb") as step:
            step("one")
        assert written() == ""


def test_a_command_that_takes_longer_shows_its_step_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATEST", 0.01)
    with terminal(monkeypatch) as written, progress(context(), "verb") as step:
        step("one")
        shown, end = "", time.monotonic() + 20
        while "verb: one" not in shown and time.monotonic() < end:
            time.sleep(0.05)
            shown += written()
        assert "verb: one" in shown


@pytest.mark.parametrize("switches", [{"quiet": True}, {"verbose": True}])
def test_quiet_and_verbose_show_no_spinner(monkeypatch: pytest.MonkeyPatch, switches: dict[str, bool]) -> None:
    monkeypatch.setattr(module, "LATEST", 0.01)
    with terminal(monkeypatch) as written:
        with progress(context(**switches), "verb") as step:
            step("one")
            time.sleep(0.2)
        assert written() == ""
