from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime import load
from storm_edge.runtime.bench import Run, ask_engine, measure
from storm_edge.runtime.bench.measuring import STAGES
from storm_edge.runtime.errors import UsageError

FRAMES = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def test_a_question_takes_the_seconds_of_its_stages_and_goes_on_to_its_length(bundle: Path) -> None:
    pipeline = load(bundle)
    run = ask_engine(pipeline, FRAMES, 12, 8)
    assert tuple(run.seconds) == STAGES
    assert all(seconds > 0 for seconds in run.seconds.values())
    assert len(run.tokens) == 11  # a random model may say at any time that it is done
    assert sum(run.seconds.values()) <= run.first_token <= run.total
    assert run.first_token + sum(run.tokens) == pytest.approx(run.total, rel=0.2, abs=0.05)
    assert run.visual_tokens == pipeline.bundle.config.visual_tokens(8)
    assert run.prompt_tokens > run.visual_tokens
    assert run.peak_memory_bytes > 0


def test_the_second_question_does_not_compute_the_clip_again(bundle: Path) -> None:
    pipeline = load(bundle)
    appended: list[int] = []
    model = pipeline.stages.generator.model  # type: ignore[attr-defined]
    append = model.append
    model.append = lambda embeds: appended.append(len(embeds)) or append(embeds)
    run = ask_engine(pipeline, FRAMES, 1, 8)
    assert sum(appended[:2]) == run.prompt_tokens
    assert sum(appended[2:]) < run.prompt_tokens - run.visual_tokens


def test_sampling_leaves_tokens_out(bundle: Path) -> None:
    pipeline = load(bundle)
    assert ask_engine(pipeline, FRAMES, 1, 8, sample=2).visual_tokens * 2 == pipeline.bundle.config.visual_tokens(8)


def test_a_clip_that_does_not_fit_is_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="take fewer frames"):
        ask_engine(load(bundle), FRAMES, 1, 4096)


def answered(total: float) -> Run:
    return Run(dict.fromkeys(STAGES, 1.0), total / 2, total, [0.1], 0.2, 4, 8, 100)


def test_all_take_turns_and_the_first_run_of_each_is_apart() -> None:
    order: list[str] = []
    totals = iter(range(1, 99))

    def ask(name: str) -> Run:
        order.append(name)
        return answered(float(next(totals)))

    found = measure({"a": lambda _: ask("a"), "b": lambda _: ask("b")}, 8, 2)
    assert order == ["a", "b"] * 3
    assert (found["a"].warm_up, found["b"].warm_up) == (1.0, 2.0)
    assert [run.total for run in found["b"].runs] == [4.0, 6.0]


class Meter:
    source = "a test"

    def __init__(self) -> None:
        self.read = iter([10.0, 16.0])

    def joules(self) -> float:
        return next(self.read)

    def close(self) -> None: ...


def test_energy_is_that_of_one_run_without_the_first() -> None:
    found = measure({"a": lambda _: answered(1.0)}, 8, 3, Meter())
    assert found["a"].joules == 2.0


def test_the_energy_of_several_is_not_told_apart() -> None:
    found = measure({"a": lambda _: answered(1.0), "b": lambda _: answered(1.0)}, 8, 3, Meter())
    assert found["a"].joules is None
