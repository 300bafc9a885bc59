from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from storm_edge.batch.library import Item
from storm_edge.batch.rows import COLUMNS, STAGES, TOKENS, Row, json_schema
from storm_edge.batch.store import SCHEMA, Store
from storm_edge.runtime.errors import UsageError

ABOUT = {"bundle": "b", "engine": "cpu-fp32"}


def row(video: str, question: str = "Why?", **more: object) -> Row:
    held = {"answer": "so", "timestamps": (0.0, 0.5), "tokens": dict.fromkeys(TOKENS, 3)}
    return Row(video, question, "cpu-fp32", "b", **(held | {"seconds": dict.fromkeys(STAGES, 0.25)} | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("where", ["local", "memory"])
def test_rows_are_there_once_after_any_number_of_runs(tmp_path: Path, where: str, form: str) -> None:
    out = str(tmp_path / "out") if where == "local" else f"memory://store/{form}"
    items = [Item(v, v, ("Why?", "Who?")) for v in ("a", "b\udcff", "c")]
    with Store(out, ABOUT, form, size=2) as store:
        assert store.missing(items) == items
        store.add([row("a"), row("a", "Who?"), row("a")])
        store.add([row("c", answer=None, error="a bad video")])
    with Store(out, ABOUT, form) as store:
        assert (store.rows, store.errors) == (3, 1)
        assert store.missing(items) == [items[1], Item("c", "c", ("Who?",))]
        store.add([row("b\udcff"), row("b\udcff", "Who?"), row("c", "Who?"), row("c")])
    with Store(out, ABOUT, form) as store:
        assert store.rows == 6
        assert store.missing(items) == []
    fs, root = fsspec.url_to_fs(out)
    if form == "parquet":
        held = pq.read_table(root, filesystem=None if where == "local" else pa.fs.PyFileSystem(pa.fs.FSSpecHandler(fs)))
        assert held.schema.equals(SCHEMA)
        rows = held.to_pylist()
    else:
        rows = [json.loads(line) for n in fs.glob(f"{root}/*.jsonl") for line in fs.cat_file(n).splitlines()]
    assert len(rows) == 6
    assert all(set(r) == set(COLUMNS) == set(json_schema()["properties"]) for r in rows)
    assert next(r for r in rows if r["video"] == "c" and r["question"] == "Why?")["error"] == "a bad video"
    assert rows[0]["timestamps"] == [0.0, 0.5]
    assert rows[0]["seconds"] == dict.fromkeys(STAGES, 0.25)


def test_an_error_that_may_pass_is_asked_again_and_never_twice_there(tmp_path: Path) -> None:
    out, item = str(tmp_path), Item("a", "a", ("Why?",))
    with Store(out, ABOUT) as store:
        store.add([row("a", answer=None, error="not there", passing=True)])
    assert [r["error"] for r in pq.read_table(out).to_pylist()] == ["not there"]
    with Store(out, ABOUT) as store:
        assert store.missing([item]) == [item]
        store.add([row("a")])
    assert [r["error"] for r in pq.read_table(out).to_pylist()] == [None]


def test_a_part_appears_when_it_is_old_and_what_a_killed_run_began_goes(tmp_path: Path) -> None:
    with Store(str(tmp_path), ABOUT, age=-1) as store:
        store.add([row("a")])
        assert len(list(tmp_path.glob("part-*.parquet"))) == 1
    (tmp_path / ".part-000009.parquet.0011aabb.tmp").write_bytes(b"half")
    with Store(str(tmp_path), ABOUT) as store:
        assert store.rows == 1
    assert not list(tmp_path.glob(".part*"))


def test_another_run_a_damaged_part_and_other_peoples_files_are_refused(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with Store(out, ABOUT) as store:
        store.add([row("a")])
    with (
        pytest.raises(UsageError, match=r"another run \(other engine\)"),
        Store(out, ABOUT | {"engine": "x"}),
    ):
        pass
    with pytest.raises(UsageError, match="other format"), Store(out, ABOUT, "jsonl"):
        pass
    (tmp_path / "out" / "part-000003.parquet").write_bytes(b"PAR1 what is this")
    with (
        pytest.raises(UsageError, match=r"part-000003.parquet is damaged .*: delete it, and run again"),
        Store(str(tmp_path / "out"), ABOUT),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.parquet").touch()
    with pytest.raises(UsageError, match=r"holds mine\.parquet"), Store(str(tmp_path / "other"), ABOUT):
        pass
    (tmp_path / "out" / "_run.json").write_text("{")
    with pytest.raises(UsageError, match=r"_run\.json is damaged"), Store(str(tmp_path / "out"), ABOUT):
        pass


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="cannot be written"), Store(str(tmp_path / "out"), ABOUT):
        pass


HOLDER = """
import sys, time
from storm_edge.batch.store import Store
with Store(sys.argv[1], {}):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_while_the_first_lives_and_not_after(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"is being filled by process {holder.pid}"), Store(str(tmp_path), {}):
            pass
        holder.kill()
    with Store(str(tmp_path), {}):
        assert int((tmp_path / ".lock").read_text()) == os.getpid()
