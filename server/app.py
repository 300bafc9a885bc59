"""The ASGI application of a service."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp

from storm_edge.runtime.errors import StormError
from storm_edge.server.errors import RequestError, told
from storm_edge.server.guard import Guard
from storm_edge.server.routes import routes
from storm_edge.server.schema import NEUTRAL
from storm_edge.server.service import Service

_LONGEST = 200  # characters of what is said of a field
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large", 429: "queue_full"}


def make_app(service: Service) -> ASGIApp:
    """The application, within its guard."""
    app = FastAPI(title="storm-edge", version=version("storm-edge"), docs_url=None, redoc_url=None)
    router = routes(service)
    app.include_router(router)
    for kind, handler in (
        (RequestError, _refused),
        (StormError, _refused),
        (RequestValidationError, _misunderstood),
        (HTTPException, _plain),
        (ClientDisconnect, _gone),
        (Exception, _refused),
    ):
        app.add_exception_handler(kind, cast(Any, handler))
    inner: ASGIApp = app
    if service.settings.origins:
        inner = CORSMiddleware(
            app,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    paths = frozenset(path for route in router.routes if "{" not in (path := getattr(route, "path", "{")))
    return Guard(inner, service.settings, service.metrics, paths)


async def _refused(request: Request, error: Exception) -> Response:
    return told(error).response()


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return RequestError(499, "the client went away.", "cancelled").response()


async def _plain(request: Request, error: HTTPException) -> Response:
    """What the framework refuses: unknown paths and methods, bodies that cannot be read."""
    code = _CODES.get(error.status_code, "invalid_request")
    return RequestError(error.status_code, error.detail, code, headers=dict(error.headers or {})).response()


async def _misunderstood(request: Request, error: RequestValidationError) -> Response:
    """A request that is not of the schema: its first fault, by the field's name."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    name = ".".join(place)[:_LONGEST] or None
    if first["type"] == "extra_forbidden":
        return RequestError(
            400, f"{name} is not supported here: leave it out.", "unsupported_parameter", name
        ).response()
    if place and place[0] in NEUTRAL:
        return RequestError(
            400, f"this value of {place[0]} is not supported here: leave it out.", "unsupported_parameter", place[0]
        ).response()
    if first["type"] == "json_invalid":
        return RequestError(400, "the body is no valid JSON.", "invalid_json").response()
    return RequestError(400, f"{name or 'the body'}: {first['msg'][:_LONGEST]}.", "invalid_value", name).response()
