from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from storm_edge.runtime import SamplingOptions, Workers, load
from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.errors import BusyError, UsageError

CLIPS = [np.random.default_rng(seed).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8) for seed in range(3)]
SHORT = SamplingOptions(max_tokens=4)


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return load(bundle, threads=1)


def soon(true: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(1000):
        if true():
            return
        waiting.wait(0.01)
    raise AssertionError("it never came true")


def answer(pipeline: Pipeline, i: int) -> str:
    return pipeline.open(CLIPS[i % 3]).ask("What happens?", SHORT).read()


def test_many_threads_on_few_workers_get_the_answers_of_one(pipeline: Pipeline) -> None:
    expected = [answer(pipeline, i) for i in range(3)]
    with Workers(pipeline, 2) as workers, ThreadPoolExecutor(8) as threads:

        def ask(i: int) -> str:
            with workers.take() as worker:
                return answer(worker, i)

        assert list(threads.map(ask, range(24))) == [expected[i % 3] for i in range(24)]


def test_who_waits_is_served_in_the_order_of_coming_and_beyond_the_line_refused_at_once(pipeline: Pipeline) -> None:
    workers, served = Workers(pipeline, waiting=3), []

    def wait(name: int) -> None:
        with workers.take():
            served.append(name)

    with ThreadPoolExecutor(3) as threads:
        with workers.take():
            for name in range(3):
                threads.submit(wait, name)
                soon(lambda: len(workers._line) == name + 1)  # noqa: B023 - evaluated at once
            with pytest.raises(BusyError, match="all 1 workers answer and 3 callers wait already"), workers.take():
                pass
        threads.shutdown()
    assert served == [0, 1, 2]


def test_a_wait_that_is_too_long_ends_and_leaves_its_place(pipeline: Pipeline) -> None:
    workers = Workers(pipeline, waiting=1)
    with workers.take():
        for _ in range(2):
            with pytest.raises(BusyError, match=r"no worker became free within 0\.01 seconds"), workers.take(0.01):
                pass
    with workers.take(0.01) as worker:
        assert worker is pipeline


def test_a_worker_is_given_back_after_an_error(pipeline: Pipeline) -> None:
    workers = Workers(pipeline, waiting=0)
    for _ in range(2):
        with pytest.raises(UsageError, match="sample is -1"), workers.take() as worker:
            worker.open(CLIPS[0], sample=-1)
    with workers.take() as worker:
        assert answer(worker, 0)


def test_closing_refuses_those_who_wait_and_those_who_come(pipeline: Pipeline) -> None:
    workers = Workers(pipeline)

    def wait() -> None:
        with workers.take():
            raise AssertionError("closed workers were lent")

    with ThreadPoolExecutor(1) as threads, workers.take():
        waiting = threads.submit(wait)
        soon(lambda: len(workers._line) == 1)
        workers.close()
        with pytest.raises(UsageError, match="closed"):
            waiting.result(10)
    with pytest.raises(UsageError, match="closed"), workers.take():
        pass


@pytest.mark.parametrize("numbers", [{"count": 0}, {"waiting": -1}])
def test_numbers_of_workers_that_mean_nothing_are_refused(pipeline: Pipeline, numbers: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="make no sense"):
        Workers(pipeline, **numbers)
