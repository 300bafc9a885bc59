from __future__ import annotations

import json
import time

import fsspec
import pytest

from storm_edge.batch import lock
from storm_edge.runtime.errors import UsageError


def test_remote_storage_is_held_by_who_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "DEAD", 0.5)
    held = lock.hold(fs, "/locked", "memory://locked")
    time.sleep(0.8)  # longer than a dead owner is waited for
    with pytest.raises(UsageError, match=r"memory://locked is being filled by process .* of "):
        lock.hold(fs, "/locked", "memory://locked")
    held.release()
    lock.hold(fs, "/locked", "memory://locked").release()


@pytest.mark.parametrize("text", ["", "[", "[1]", '["token", "never", "me"]'])
def test_a_lock_of_a_dead_owner_or_of_nobody_is_taken_over(text: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/old/.lock", text.encode() or json.dumps(["t", time.time() - 1000, "process 1"]).encode())
    lock.hold(fs, "/old", "memory://old").release()
    assert not fs.exists("/old/.lock")
