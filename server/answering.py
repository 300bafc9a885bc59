"""Between the scheduler's threads and one request: its events as they come, and the end where the client goes away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from storm_edge.server.errors import RequestError, json_response, told
from storm_edge.server.jobs import Begun, Ended, Event, Failed, Job, Piece, too_late
from storm_edge.server.replies import Reply, event
from storm_edge.server.scheduler import Scheduler

SLOW_READER = 30.0  # seconds beyond an answer's own time in which its last bytes must be taken


async def events(
    scheduler: Scheduler, make: Callable[[Callable[[Event], None]], Job], receive: Receive
) -> AsyncGenerator[Event, None]:
    """Submit the job that `make` makes for a listener, and give what it tells, up to Ended.

    Raises RequestError where it is refused, fails, takes too long, or the client goes away.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def tell(event: Event) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(queue.put_nowait, event)

    job = make(tell)
    try:
        scheduler.submit(job)
    except BaseException:
        job.source.close()
        raise
    gone = asyncio.create_task(_gone(receive))
    over = RequestError(499, "the client went away.", "cancelled")
    try:
        while True:
            coming = asyncio.create_task(queue.get())
            left = max(job.deadline - time.monotonic(), 0)
            done, _ = await asyncio.wait({coming, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if coming not in done:
                coming.cancel()
                over = over if gone in done else too_late()
                raise over
            told_event = coming.result()
            if isinstance(told_event, Failed):
                raise told(told_event.error)
            yield told_event
            if isinstance(told_event, Ended):
                return
    finally:
        gone.cancel()
        scheduler.cancel(job, over)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Stream(Response):
    """An answer as server-sent events. Its first event is awaited before it, so that errors have their status."""

    media_type = "text/event-stream"

    def __init__(
        self, reply: Reply, begun: Begun, rest: AsyncGenerator[Event, None], with_usage: bool, seconds: float
    ) -> None:
        super().__init__()
        self._reply, self._begun, self._rest = reply, begun, rest
        self._with_usage, self._seconds = with_usage, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; the connection of a reader who takes too long is given up."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        async with aclosing(self._bytes()) as parts:
            await asyncio.wait_for(self._send(parts, headers, send), self._seconds + SLOW_READER)

    async def _send(self, parts: AsyncGenerator[bytes, None], headers: list[tuple[bytes, bytes]], send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _bytes(self) -> AsyncGenerator[bytes, None]:
        reply = self._reply
        yield reply.first(self._begun)
        try:
            async for told_event in self._rest:
                if isinstance(told_event, Piece):
                    yield reply.piece(told_event.text)
                elif isinstance(told_event, Ended):
                    yield reply.last(self._begun, told_event.stats)
                    if self._with_usage:
                        yield reply.used(told_event.stats)
                    yield b"data: [DONE]\n\n"
        except RequestError as e:
            yield event(e.body())
        finally:
            await self._rest.aclose()


async def whole(reply: Reply, begun: Begun, rest: AsyncGenerator[Event, None]) -> Response:
    """An answer in one piece; raises RequestError."""
    text = ""
    async with aclosing(rest):
        async for told_event in rest:
            if isinstance(told_event, Piece):
                text += told_event.text
            elif isinstance(told_event, Ended):
                return json_response(reply.whole(text, begun, told_event.stats))
    raise AssertionError("an answer ends with Ended or an error")
