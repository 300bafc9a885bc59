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


def test_storage_gives_it_to_one_of_two_that_find_it_free(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    first = lock.hold(fs, "/both", "memory://both")
    monkeypatch.setattr(lock._Beating, "_read", lambda self: None)  # as if read before the other wrote
    with pytest.raises(UsageError, match="memory://both is being filled"):
        lock.hold(fs, "/both", "memory://both")
    first.release()


def test_a_run_that_was_thought_dead_notices_that_another_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")
    monkeypatch.setattr(lock, "BEAT", 0.2)
    asleep = lock.hold(fs, "/slept", "memory://slept")
    asleep.check()
    monkeypatch.setattr(lock, "DEAD", 0.0)
    other = lock.hold(fs, "/slept", "memory://slept")
    monkeypatch.undo()
    end = time.monotonic() + 10

    def wait_for_it() -> None:
        while time.monotonic() < end:
            asleep.check()
            time.sleep(0.05)

    with pytest.raises(UsageError, match="as nothing was heard of this run"):
        wait_for_it()
    asleep.release()
    assert fs.exists("/slept/.lock")  # the other's
    other.release()


def test_storage_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = fsspec.filesystem("memory")

    def broken(*_: object, **__: object) -> bytes:
        raise OSError("no route to host")

    monkeypatch.setattr(fs, "cat_file", broken)
    with pytest.raises(UsageError, match=r"memory://far cannot be locked \(no route to host\)"):
        lock.hold(fs, "/far", "memory://far")
