from __future__ import annotations

import sys

import pytest

from storm_edge.runtime.bench.measuring import STAGES
from storm_edge.runtime.bench.peer import Peer
from storm_edge.runtime.errors import UsageError

ANSWERS = f"""
import json, sys
print("{{}}", flush=True)
for line in sys.stdin:
    run = dict(seconds=dict.fromkeys({STAGES!r}, 1.0), first_token=4.0, total=float(line), tokens=[0.1], again=0.2)
    print(json.dumps(run | dict(visual_tokens=4, prompt_tokens=8, peak_memory_bytes=9)), flush=True)
"""


def peer(code: str) -> Peer:
    return Peer("the other", [sys.executable, "-c", code])


def test_a_peer_answers_in_a_process_of_its_own() -> None:
    with peer(ANSWERS) as other:
        assert [other.ask(frames).total for frames in (8, 32)] == [8.0, 32.0]


def test_what_a_peer_cannot_do_is_told_in_its_words() -> None:
    with pytest.raises(UsageError, match="the other: no such checkpoint"):
        peer('print(\'{"error": "no such checkpoint"}\')')


def test_a_peer_that_ends_is_told_with_its_last_line() -> None:
    with pytest.raises(UsageError, match=r"the other ended \(ModuleNotFoundError: no torch\): "):
        peer("raise ModuleNotFoundError('no torch')")


def test_a_peer_that_ends_while_it_is_asked_is_told_too() -> None:
    with peer("print('{}', flush=True); input(); raise MemoryError") as other:
        with pytest.raises(UsageError, match="MemoryError"):
            other.ask(8)
        with pytest.raises(UsageError, match="MemoryError"):
            other.ask(8)
