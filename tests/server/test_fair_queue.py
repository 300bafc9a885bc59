from __future__ import annotations

import threading

from storm_edge.server.fair_queue import FairQueue


def test_keys_take_turns_and_of_one_key_the_first_comes_first() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    assert [queue.get() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_an_item_can_leave_its_line() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "a1")
    queue.put("b", "b1")
    assert queue.remove("a", "a1")
    assert not queue.remove("a", "a1")
    assert queue.get() == "b1"


def test_whoever_waits_goes_when_it_is_closed() -> None:
    queue: FairQueue[str] = FairQueue()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(10)
    assert got == [None]
