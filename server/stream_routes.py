"""The paths of live videos: made, shown, fed, ended, and listened to."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, WebSocket
from starlette.concurrency import run_in_threadpool
from starlette.types import Message as Told

from storm_edge.runtime.errors import StormError
from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.server.answering import events
from storm_edge.server.decode_job import Sampling
from storm_edge.server.errors import RequestError, told
from storm_edge.server.jobs import Begun, Job, Piece
from storm_edge.server.live_sources import LARGEST, PushedFrames
from storm_edge.server.replies import live
from storm_edge.server.schema import StreamRequest
from storm_edge.server.service import Service
from storm_edge.server.streams import LiveClip
from storm_edge.server.video_cache import VideoKey

_LOOK = 0.1  # seconds between two looks at a stream that has no frame yet
_IMAGE = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}}


def stream_routes(service: Service) -> APIRouter:
    """Those paths of a server."""
    router, streams = APIRouter(), service.streams

    @router.post("/v1/streams")
    async def create(body: StreamRequest) -> dict[str, Any]:
        """Watch a live video, to ask about it by `stream:` and its id."""
        return (await run_in_threadpool(streams.create, body)).shown()

    @router.get("/v1/streams")
    async def listed() -> dict[str, Any]:
        """Those that are watched."""
        return {"object": "list", "data": [stream.shown() for stream in streams.listed()]}

    @router.get("/v1/streams/{stream_id}")
    async def one(stream_id: str) -> dict[str, Any]:
        """One of them."""
        return streams.get(stream_id).shown()

    @router.delete("/v1/streams/{stream_id}")
    async def delete(stream_id: str) -> dict[str, Any]:
        """Watch it no more."""
        await run_in_threadpool(streams.delete, stream_id)
        return {"id": stream_id, "object": "stream", "deleted": True}

    @router.post("/v1/streams/{stream_id}/frames", openapi_extra=_IMAGE)
    async def push(stream_id: str, request: Request) -> dict[str, Any]:
        """The next frame, an image, of a stream whose source is `frames`."""
        stream = streams.get(stream_id)
        source, content = stream.source, bytearray()
        if not isinstance(source, PushedFrames):
            raise RequestError(400, "the source of this stream is no client: make one of 'frames'.", "invalid_value")
        async for part in request.stream():
            content += part
            if len(content) > LARGEST:
                raise RequestError(413, f"a frame has no more than {LARGEST} bytes.", "too_large")
        if not content:
            raise RequestError(400, "the body is empty: send an image.", "invalid_value")

        def pushed() -> None:
            with streams.sources.scratch() as file:
                file.write(bytes(content))
                file.seek(0)
                source.push(file, len(content))

        await run_in_threadpool(pushed)
        return stream.shown()

    @router.websocket("/v1/streams/{stream_id}/events")
    async def listen(
        socket: WebSocket,
        stream_id: str,
        question: Annotated[str, Query(min_length=1, max_length=4096)],
        every: Annotated[float, Query(ge=0.2, le=3600)] = 5.0,
        max_tokens: Annotated[int, Query(ge=1, le=4096)] = 64,
    ) -> None:
        """Ask the question every so many seconds, and tell when the answer has changed."""
        await socket.accept()
        listener = _Listener(service, socket, stream_id, question, SamplingOptions(max_tokens=max_tokens))
        with suppress(RuntimeError):  # the client is gone
            await listener.serve(every)

    return router


class _Listener:
    """One client who hears of changes."""

    def __init__(
        self, service: Service, socket: WebSocket, stream_id: str, question: str, options: SamplingOptions
    ) -> None:
        self._service, self._socket, self._stream_id, self._options = service, socket, stream_id, options
        self._messages = [Message("user", question, video=True)]
        self._who = secrets.token_hex(8)
        self._gone = asyncio.Event()

    async def serve(self, every: float) -> None:
        """Until the client, the stream or the server ends."""
        waiting = asyncio.create_task(self._wait_for_end())
        last: str | None = None
        try:
            while not self._gone.is_set():
                begun = time.monotonic()
                try:
                    answer, begins = await self._asked()
                except (RequestError, StormError) as e:
                    error = told(e)
                    await self._socket.send_json({"type": "error"} | error.body())
                    if error.status in (404, 503):
                        return await self._socket.close()
                else:
                    if begins is None:
                        await self._pause(_LOOK)
                        continue
                    moment = begins.encoded.moment
                    assert moment is not None
                    if answer != last:
                        last = answer
                        times = {"oldest": float(moment.timestamps[0]), "newest": float(moment.timestamps[-1])}
                        await self._socket.send_json({"type": "answer", "answer": answer} | times | live(moment))
                    if moment.ended:
                        await self._socket.send_json({"type": "ended"})
                        return await self._socket.close()
                await self._pause(begun + every - time.monotonic())
        finally:
            waiting.cancel()

    async def _asked(self) -> tuple[str, Begun | None]:
        """The answer of this moment; "" and nothing where no frame has come yet. Raises RequestError."""
        stream = self._service.streams.get(self._stream_id)
        if not await run_in_threadpool(stream.watch.wait, 1, 0):
            if stream.watch.ended:
                raise RequestError(404, "the stream has ended without a frame.", "stream_ended")
            return "", None
        clip, deadline = LiveClip(stream), time.monotonic() + self._service.settings.timeout
        key, text, begins = VideoKey(clip.digest, Sampling()), "", None
        coming = events(
            self._service.scheduler,
            lambda tell: Job(self._who, clip, key, self._messages, self._options, deadline, tell),
            self._receive,
        )
        async with aclosing(coming):
            async for event in coming:
                if isinstance(event, Begun):
                    begins = event
                elif isinstance(event, Piece):
                    text += event.text
        return text, begins

    async def _receive(self) -> Told:
        """What an answer waits for besides: that the client goes."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _wait_for_end(self) -> None:
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass
        self._gone.set()

    async def _pause(self, seconds: float) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._gone.wait(), max(seconds, 0))
