"""The interface: OpenAI's paths, and those that tell how the server is."""

from __future__ import annotations

import logging
import time
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from storm_edge.server.answering import Stream, events, whole
from storm_edge.server.errors import RequestError, json_response
from storm_edge.server.jobs import Begun, Job
from storm_edge.server.page import Page
from storm_edge.server.questions import understand
from storm_edge.server.replies import Reply
from storm_edge.server.schema import ChatRequest
from storm_edge.server.service import Service
from storm_edge.server.stream_routes import stream_routes
from storm_edge.server.uploads import receive
from storm_edge.server.video_cache import VideoKey

log = logging.getLogger(__name__)

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}},
                    "required": ["file"],
                }
            }
        },
    }
}


def routes(service: Service) -> APIRouter:
    """All paths of a server."""
    router = APIRouter()
    settings, scheduler, model = service.settings, service.scheduler, service.model
    page = Page.read()

    @router.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a question about a video, whole or as a stream of events."""
        if body.model not in (None, model):
            raise RequestError(404, f"the model here is {model}.", "model_not_found", "model")
        if body.stream_options is not None and not body.stream:
            raise RequestError(400, "stream_options belong to a stream.", "unsupported_parameter", "stream_options")
        deadline = time.monotonic() + settings.timeout
        scheduler.check()
        question = understand(body, settings.max_frames)
        if settings.log_prompts:
            log.info("asked: %r", question.messages[-1].text)
        source = await run_in_threadpool(question.open, service.sources, service.streams)
        who = body.user or (request.client.host if request.client is not None else "", source.digest)
        key = VideoKey(source.digest, question.sampling)
        coming = events(
            scheduler,
            lambda tell: Job(who, source, key, question.messages, question.options, deadline, tell),
            request.receive,
        )
        begun = await anext(coming)
        assert isinstance(begun, Begun)
        reply = Reply(
            model, scheduler.engine.name, service.tokens_per_frame, with_frames="frames" in (body.storm or [])
        )
        if not body.stream:
            return await whole(reply, begun, coming)
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return Stream(reply, begun, coming, with_usage, settings.timeout)

    router.include_router(stream_routes(service))

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [service.shown()]}

    @router.get("/v1/models/{model_id:path}")
    async def one_model(model_id: str) -> dict[str, Any]:
        """The same by its name."""
        if model_id != model:
            raise RequestError(404, f"the model here is {model}.", "model_not_found", "model")
        return service.shown()

    @router.post("/v1/files", openapi_extra=_UPLOAD)
    async def upload(request: Request) -> dict[str, Any]:
        """Keep a video, to ask about it by its id."""
        if scheduler.refusing:
            scheduler.check()
        content_type = request.headers.get("content-type", "")
        stored = await receive(content_type, request.stream(), service.files, settings.max_upload)
        return stored.shown()

    @router.get("/v1/files")
    async def files() -> dict[str, Any]:
        """The videos that are kept."""
        return {"object": "list", "data": [stored.shown() for stored in service.files.listed()], "has_more": False}

    @router.get("/v1/files/{file_id}")
    async def one_file(file_id: str) -> dict[str, Any]:
        """One of them."""
        return service.files.get(file_id).shown()

    @router.delete("/v1/files/{file_id}")
    async def delete(file_id: str) -> dict[str, Any]:
        """Forget a video."""
        service.files.delete(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server lives."""
        return {"status": "alive"}

    @router.get("/ready")
    async def ready() -> Response:
        """Whether questions are taken."""
        return json_response({"status": "ending"}, 503) if scheduler.refusing else json_response({"status": "ready"})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=1.0.0")

    @router.get("/version")
    async def tell_version() -> dict[str, str]:
        """What runs here."""
        return {"version": version("storm-edge"), "engine": scheduler.engine.name, "model": model}

    @router.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return page.response()

    return router
