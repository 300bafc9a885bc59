from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from storm_edge.runtime.bench.measuring import STAGES, Run

FOLDER = Path(__file__).parents[2] / "benchmarks" / "side_by_side"
PEER = """
import sys
print("{}", flush=True)
for task in sys.stdin:
    print('{"task": "%s"}' % task.strip(), flush=True)
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def run(scale: float, again: float = 0.1) -> dict[str, Any]:
    seconds = dict.fromkeys(STAGES, scale)
    return asdict(Run(seconds, 4 * scale, 5 * scale, [0.1] * 3, again, 392, 420, 2**30))


def row(answers: dict[str, Any]) -> dict[str, Any]:
    machine = {"processor": "a processor", "cores": "2", "commit": "0"}
    return {"date": "2026-11-29", "machine": machine, "others": 0.01, "answers": answers}


def test_contestants_take_turns_and_the_first_round_does_not_count(module: Callable[[str], Any]) -> None:
    turns = module("turns")
    contestants = [turns.Contestant(name, (sys.executable, "-c", PEER)) for name in "ab"]
    found = turns.take_turns(contestants, ["8", "32"], 2, True)
    assert found["answers"] == {name: {task: [{"task": task}] * 2 for task in ("8", "32")} for name in "ab"}
    assert 0 <= found["others"] <= 1


@pytest.mark.parametrize("model", ["edge", "quarter"])
def test_every_row_has_a_name_of_its_own_and_someone_to_run(model: str, module: Callable[[str], Any]) -> None:
    found = module("rows").rows(module("prepare").Workplace.of(model))
    assert len({row.name for row in found}) == len(found)
    assert all(row.contestants and row.tasks for row in found)


def test_the_page_says_what_was_measured_and_what_was_not(tmp_path: Path, module: Callable[[str], Any]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run `make setup`")
    language = {"prefill": 2.0, "decode": 0.05, "peak_memory_bytes": 2**30}
    noisy = row({"storm cpu-fp32-llm-int4": {"256": [run(8.0)]}}) | {"others": 0.4}
    done = {
        "scaling 256": noisy,
        "question": row({"storm cpu-fp32": {"32": [run(1.0)]}, "PyTorch float32": {"32": [run(2.0, 3.0)]}}),
        "language int4 512": row({"storm int4": {"512 16": [language]}, "llama.cpp Q4_0": {"512 16": [language]}}),
        "scaling 32": row({"storm cpu-fp32-llm-int4": {"32": [run(1.0)]}}),
        "scaling 128": row({"storm cpu-fp32-llm-int4": {"128": [run(4.0)]}}),
        "prefill 1568": row({"storm int4": {"1568 0": [{"prefill": 8.0, "peak_memory_bytes": 1}]}}),
        "prefill 392": row({"storm int4": {"392 0": [{"prefill": 2.0, "peak_memory_bytes": 1}]}}),
    }
    deep = {"question": row({"storm cpu-fp32": {"32": [run(2.0)]}, "PyTorch float32": {"32": [run(6.0, 3.0)]}})}
    deep["question int8"] = noisy
    module("page").write_page(module("prepare").Workplace.of("quarter"), done, deep, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "first token 2.00 times as soon, second question 40 times sooner than the first" in page
    assert "first token 3.00 times as soon, second question 80 times" in page.split("### At full depth")[1]
    assert "| 32 | 8.00 (11.0) | not run | 2.00 (5.0) | not run | not run |" in page
    assert "| 512 | llama.cpp Q4_0 | 2.00 s | 256 | 50 ms | 1.00 GiB | 1% |" in page
    assert "Left out: scaling 256." in page
    assert "| 256 | not run | not run | not run | 8.00 | not run |" in page
    assert "Others took 1% of the processors' time." in page
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert all(line.count("|") == 7 for line in page.split("## The token budget")[1].splitlines()[4:11])


def test_a_page_without_rows_says_so(tmp_path: Path, module: Callable[[str], Any]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run `make setup`")
    module("page").write_page(module("prepare").Workplace.of("quarter"), {}, {}, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "No row has been measured on a quiet machine yet." in page
    assert [path.name for path in tmp_path.iterdir()] == ["benchmarks.md"]
