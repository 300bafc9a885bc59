"""The `storm` command."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module


def main() -> None:
    """Run the command line; exits the process."""
    # Nothing is begun yet, so that whoever stops the command while it is imported need not see where that was.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    _fill_closed_streams()
    import_module("storm_edge.cli.main").main()


def _stop(number: int, frame: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)


def _fill_closed_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr empty ones.

    Else the first file it opens would get that number, and what is printed would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="replace", closefd=False))


__all__ = ["main"]
