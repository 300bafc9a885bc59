from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from storm_edge.runtime.video.ahead import ahead


def decoding() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "storm-decode"]


class Numbers:
    """0, 1, 2, ... and what happened to them."""

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error = count, error
        self.made, self.closed, self.thread = 0, 0, ""
        self.waiting = threading.Semaphore(0)

    def __call__(self) -> Iterator[int]:
        self.thread = threading.current_thread().name
        try:
            for i in range(self.count):
                self.made += 1
                self.waiting.release()
                yield i
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1


def test_all_items_come_in_order_from_a_thread_that_is_gone_afterwards() -> None:
    numbers = Numbers(20)
    assert list(ahead(numbers())) == list(range(20))
    assert (numbers.thread, numbers.closed, decoding()) == ("storm-decode", 1, [])


@pytest.mark.parametrize("most", [1, 2])
def test_it_stays_so_many_items_ahead_and_no_more(most: int) -> None:
    numbers = Numbers(20)
    items = ahead(numbers(), most)
    for taken in range(1, 6):
        next(items)
        for _ in range(most + (taken == 1)):  # these come by themselves
            assert numbers.waiting.acquire(timeout=10)
            if taken > 1:
                break
        assert not numbers.waiting.acquire(timeout=0.05)
        assert numbers.made == taken + most
    items.close()


def test_an_early_end_closes_the_source_and_leaves_no_thread() -> None:
    numbers = Numbers(20)
    items = ahead(numbers())
    assert next(items) == 0
    items.close()
    assert (numbers.closed, decoding()) == (1, [])
    assert numbers.made <= 3


@pytest.mark.parametrize("error", [ValueError("damaged"), KeyboardInterrupt()])
def test_an_error_comes_where_its_item_would_have(error: BaseException) -> None:
    numbers = Numbers(3, error)
    items = ahead(numbers())
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)):
        next(items)
    assert (numbers.closed, decoding()) == (1, [])


def test_what_was_never_asked_for_starts_no_thread() -> None:
    ahead(Numbers(3)()).close()
    assert decoding() == []


def test_an_iterator_that_cannot_be_closed_works_too() -> None:
    assert list(ahead(iter([1, 2, 3]))) == [1, 2, 3]
