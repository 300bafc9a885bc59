from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from storm_edge.runtime.bundle.publish import lock, staging


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_folder_appears_whole_and_replaces_the_one_before(tmp_path: Path) -> None:
    for text in ("one", "two"):
        with staging(tmp_path / "out") as folder:
            (folder / "f").write_text(text)
            assert not (tmp_path / "out").exists() or (tmp_path / "out" / "f").read_text() != text
        assert (tmp_path / "out" / "f").read_text() == text
    assert names(tmp_path) == {"out"}


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    with staging(tmp_path / "out") as folder:
        (folder / "f").write_text("one")

    def interrupted() -> None:
        with staging(tmp_path / "out") as folder:
            (folder / "f").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "f").read_text() == "one"


def _write_for_ever(path: Path) -> None:
    with staging(path) as folder:
        (folder / "f").write_text("half")
        time.sleep(60)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(tmp_path / "out",))
    writer.start()
    while not list(tmp_path.glob(".out.partial-*/f")):
        time.sleep(0.01)
    with staging(tmp_path / "out") as folder:  # the other is alive: its folder stays
        (folder / "f").write_text("one")
    assert len(names(tmp_path)) == 2
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with staging(tmp_path / "out") as folder:
        (folder / "f").write_text("two")
    assert names(tmp_path) == {"out"}


def test_the_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    import fcntl

    with lock(tmp_path, "engines"):
        descriptor = os.open(tmp_path / "engines", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
