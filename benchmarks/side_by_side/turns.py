"""Programs that take turns at the same task, each in a process of its own, so that a busy machine is unfair to none."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.runtime.bench.peer import Peer

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """A name and the command of a peer (see runtime/bench/peer.py)."""

    name: str
    command: tuple[str, ...]


def take_turns(contestants: Sequence[Contestant], tasks: Sequence[str], rounds: int, warm_up: bool) -> dict[str, Any]:
    """What each answers to every task in every round, and how much of the processors' time others took meanwhile."""
    with ExitStack() as stack:
        peers = {c.name: stack.enter_context(Peer(c.name, c.command)) for c in contestants}
        found: dict[str, Any] = {name: {task: [] for task in tasks} for name in peers}
        begun = _busy(), sum(_used(peer.process) for peer in peers.values()), time.monotonic()
        for round_ in range(rounds + warm_up):
            for task in tasks:
                for name, peer in peers.items():
                    answer = peer.exchange(task)
                    print(f"{name}: {task}: {answer}"[:400], file=sys.stderr, flush=True)
                    if round_ >= warm_up:
                        found[name][task].append(answer)
        busy, used = _busy() - begun[0], sum(_used(peer.process) for peer in peers.values()) - begun[1]
        seconds = time.monotonic() - begun[2]
    others = (busy - used) / (seconds * len(os.sched_getaffinity(0)))
    return {"answers": found, "others": min(1.0, max(0.0, others))}  # the system counts in steps of 10 ms


def _busy() -> float:
    """Seconds that all processors have worked since the system started."""
    fields = [int(x) for x in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS  # all but idle and waiting for a disk


def _used(process: int) -> float:
    """Seconds that a process and its children, those that live and those that ended, have worked."""
    stats = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            stats[int(file.parent.name)] = file.read_text(encoding="utf-8").rpartition(")")[2].split()
    family = {process}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in family} - family:
        family |= more
    return sum(int(x) for pid in family for x in stats.get(pid, ())[11:15]) / _TICKS
