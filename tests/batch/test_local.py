from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from storm_edge.batch.library import Item, read_library
from storm_edge.batch.local import answer_locally
from storm_edge.batch.predictor import Asking, Predictor
from storm_edge.batch.rows import Row
from storm_edge.runtime.errors import BundleError, EngineError


def failed(item: Item, words: str, passing: bool) -> Sequence[Row]:
    return [Row(item.video, q, "e", "b", error=words, passing=passing) for q in item.questions]


def asking(trained: Path, **more: object) -> Asking:
    return Asking(str(trained), frames=8, max_tokens=8, **more)  # type: ignore[arg-type]


def test_processes_answer_what_one_pipeline_answers(trained: Path, library: Path) -> None:
    items = read_library(str(library / "table.jsonl"), ["question", "How many objects are there?"])
    (library / "broken.mp4").write_bytes(b"\0" * 4096)
    items += [
        Item("broken.mp4", str(library / "broken.mp4"), ("Why?",)),
        Item("gone.mp4", "/nowhere/gone.mp4", ("Why?",)),
    ]
    rows = [row for rows in answer_locally(asking(trained), items, 2, failed) for row in rows]
    predictor = Predictor.of(asking(trained, threads=1))
    alone = [row for item in items for row in predictor.answer(item)]
    key = lambda row: (row.video, row.question)  # noqa: E731
    told = [(key(r), r.answer, r.error, r.timestamps, r.passing) for r in sorted(rows, key=key)]
    assert told == [(key(r), r.answer, r.error, r.timestamps, r.passing) for r in sorted(alone, key=key)]
    errors = {row.video: row for row in rows if row.error}
    assert set(errors) == {"broken.mp4", "gone.mp4"}
    assert errors["gone.mp4"].passing
    assert not errors["broken.mp4"].passing
    first = next(row for row in rows if row.seconds)
    assert all(seconds > 0 for seconds in first.seconds.values())


KILLED = """
import os, signal, sys
from storm_edge.batch import worker
from storm_edge.batch.decoding import Looking
read = Looking.read
def deadly(self, location):
    if "1.mp4" in location:
        os.kill(os.getpid(), signal.{signal})
    return read(self, location)
Looking.read = deadly
worker.main()
"""


@pytest.mark.parametrize(("name", "passing"), [("SIGSEGV", False), ("SIGKILL", True)])
def test_a_video_that_ends_its_process_twice_becomes_an_error_and_harms_no_other(
    trained: Path, library: Path, monkeypatch: pytest.MonkeyPatch, name: str, passing: bool
) -> None:
    start = subprocess.Popen

    def popen(command: list[str], **more: object) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-c", KILLED.format(signal=name), command[-1]], **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("storm_edge.batch.local.subprocess.Popen", popen)
    items = read_library(str(library / "table.jsonl"), ["question"])
    rows = {row.video: row for rows in answer_locally(asking(trained), items, 1, failed) for row in rows}
    assert set(rows) == {item.video for item in items}
    assert rows["1.mp4"].error == f"the process that looked at it ended ({name}), twice"
    assert rows["1.mp4"].passing is passing
    assert all(row.answer for video, row in rows.items() if video != "1.mp4")


def test_a_bundle_that_does_not_load_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        list(answer_locally(Asking(str(tmp_path)), [Item("a", "a", ("?",))], 1, failed))


RUN = """
import sys
from storm_edge.batch.library import Item
from storm_edge.batch.local import answer_locally
from storm_edge.batch.predictor import Asking
def items():
    i = 0
    while True:
        i += 1
        yield Item(f"{{i}}", "{video}", ("Why?",))
for rows in answer_locally(Asking("{bundle}", frames=8), items(), 1, None):
    if rows:
        print("rows", flush=True)
"""


DEAD = """
import os, sys
print("no", "room", sep=chr(10), file=sys.stderr, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("deaths", "answers"), [(2, True), (3, False)])
def test_workers_that_end_while_they_load_are_replaced_a_few_times(
    trained: Path, library: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, answers: bool
) -> None:
    start, begun = subprocess.Popen, [0]

    def popen(command: list[str], **more: object) -> subprocess.Popen[bytes]:
        begun[0] += 1
        dead = [sys.executable, "-c", DEAD]
        return start(dead if begun[0] <= deaths else command, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", popen)
    items = read_library(str(library / "table.jsonl"), ["question"])[:2]
    if answers:
        rows = [row for rows in answer_locally(asking(trained), items, 1, failed) for row in rows]
        assert [row.error for row in rows] == [None, None]
    else:
        with pytest.raises(EngineError, match=r"ended while it loaded the bundle \(SIGKILL: room\)"):
            list(answer_locally(asking(trained), items, 1, failed))


def test_workers_end_with_their_parent(trained: Path, library: Path) -> None:
    code = RUN.format(video=library / "0.mp4", bundle=trained)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "rows\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert children
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < end, "a worker outlives its parent"
        time.sleep(0.05)
