from __future__ import annotations

import asyncio
import threading

import pytest

from storm_edge.runtime.llm.background import Background


@pytest.fixture
def background():
    made = Background()
    yield made
    made.stop()


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def test_a_coroutine_gives_its_result_and_what_it_raises(background: Background) -> None:
    async def fail() -> None:
        raise KeyError("no")

    assert background.wait(double(3)) == 6
    with pytest.raises(KeyError, match="no"):
        background.wait(fail())


def test_two_threads_wait_beside_each_other(background: Background) -> None:
    first_runs = threading.Event()

    async def first() -> str:
        first_runs.set()
        await released.wait()
        return "first"

    async def make() -> asyncio.Event:
        return asyncio.Event()

    async def release() -> None:
        released.set()

    released = background.wait(make())
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(background.wait(first())))
    thread.start()
    assert first_runs.wait(10)
    background.wait(release())
    thread.join(10)
    assert results == ["first"]


def test_a_coroutine_that_nobody_waits_for_any_more_is_cancelled(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    class Interrupted:
        """A future whose waiter is interrupted as by Ctrl-C."""

        def __init__(self, future) -> None:
            self.future = future

        def result(self) -> None:
            background.wait(double(1))  # the other runs by now
            monkeypatch.undo()
            raise KeyboardInterrupt

        def cancel(self) -> None:
            self.future.cancel()

    started = asyncio.run_coroutine_threadsafe
    calls = iter([lambda *args: Interrupted(started(*args)), started])
    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", lambda *args: next(calls)(*args))
    with pytest.raises(KeyboardInterrupt):
        background.wait(endless())
    assert cancelled.wait(10)


def test_it_stops_from_its_own_thread_too() -> None:
    background = Background()

    async def stop() -> None:
        background.stop()

    background.wait(stop())
    background._thread.join(10)
    assert not background._thread.is_alive()
