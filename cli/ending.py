"""How a command ends when it is told to: within a second, whatever runs, and with nothing half-written left.

Python handles a signal only between two of its own steps, and a graph or a compiler runs for minutes in one. So the
first SIGTERM or Ctrl-C raises KeyboardInterrupt as usual, and a small process, the guard, which the signal wakes
through a pipe, waits a moment for that to do. Then it lets a thread of the command tidy up and end it; where native
code keeps even threads from running, the guard ends the command itself, and the next writer removes what was begun.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

STOPPED = 130  # exit status of a command that was stopped
# Seconds from the signal to the thread's turn, and from there to the guard's.
PATIENCE, LAST = 0.6, 0.3
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_when_told() -> None:
    """Let SIGTERM and SIGINT raise KeyboardInterrupt, and end the process where that does not.

    To be called before there are threads: it forks.
    """
    told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    turn, give = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(told, True)
    command = os.getpid()
    if os.fork() == 0:
        os.close(tell)
        os.close(turn)
        try:
            _guard(command, told, give)
        finally:
            os._exit(0)
    os.close(told)
    os.close(give)
    for number in _SIGNALS:
        signal.signal(number, signal.default_int_handler)
    # What the C library calls on a signal writes into the pipe, at once, in whatever code the process is.
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(turn,), name="storm-ending", daemon=True).start()


def end_by_itself() -> None:
    """Leave signals to the command itself, which has set its own handlers or will: the guard hears of none any more."""
    signal.set_wakeup_fd(-1)


def _guard(command: int, told: int, give: int) -> None:
    """Wait for the signal or the command's end, which closes `told`; kept apart from its terminal and its pipes."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    while byte := os.read(told, 1):
        if byte[0] in _SIGNALS:
            if not _ended(told, PATIENCE):
                os.write(give, b"!")
                if not _ended(told, LAST):
                    _kill_children(command)
                    os.kill(command, signal.SIGKILL)
            return


def _ended(told: int, seconds: float) -> bool:
    """Whether the command ends within so many seconds."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([told], [], [], left)[0] and not os.read(told, 1):
            return True
    return False


def _end(turn: int) -> None:
    if not os.read(turn, 1):
        return  # there is no guard any more
    _kill_children(os.getpid())
    publish = sys.modules.get("storm_edge.runtime.bundle.publish")
    if publish is not None:  # else nothing was begun
        publish.abandon_all()
    with suppress(OSError):
        os.write(2, b"stopped\n")
    os._exit(STOPPED)


def _kill_children(command: int) -> None:
    """End the processes that a command started, which would work on for nobody."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            pid = int(entry.name)
            parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == command and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
