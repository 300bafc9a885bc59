"""What every request passes before anything reads it: whose page sent it, its key, and how large it may be."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storm_edge.server.errors import RequestError
from storm_edge.server.metrics import Metrics
from storm_edge.server.settings import MIB, Settings

log = logging.getLogger(__name__)

OPEN = ("/", "/health", "/ready")  # without a key
POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1
PATIENCE = 30.0  # seconds for the next bytes of a request
_FORM = MIB  # bytes of an upload beside its file
_BODIES = 4  # largest requests that are held at a time
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: frozenset[str]) -> None:
        """`paths` are those that metrics name; what else is asked for is counted together."""
        self._app, self._settings, self._metrics, self._paths = app, settings, metrics, paths
        self._keys = [_digest(key.encode()) for key in settings.keys]
        self._held = 0  # bytes of requests that are being read or answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._pass_socket(scope, receive, send)
            return
        start, status = time.monotonic(), 499

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        body = _Body(self, receive, self._most(scope))
        try:
            self._check(scope, body.most)
            await self._app(scope, body.receive, sending)
        except RequestError as e:
            await e.response()(scope, receive, sending)
        finally:
            self._held -= body.held
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, str(status)).inc()
            log.info("%s %s %d %.0f ms", scope["method"], path, status, 1000 * (time.monotonic() - start))

    async def _pass_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope, self._settings.max_body)
        except RequestError as e:
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": e.message})
            return
        await self._app(scope, receive, send)

    def hold(self, count: int) -> None:
        """Take room for more bytes of requests; raises HTTPException where too many are held already."""
        if self._held + count > _BODIES * self._settings.max_body:
            raise HTTPException(
                429, "too many large requests at once: upload videos with POST /v1/files, or try later."
            )
        self._held += count

    def _most(self, scope: Scope) -> int:
        is_upload = scope["path"] == "/v1/files" and scope["method"] == "POST"
        return self._settings.max_upload + _FORM if is_upload else self._settings.max_body

    def _check(self, scope: Scope, most: int) -> None:
        headers, settings = Headers(scope=scope), self._settings
        host = headers.get("host", "")
        if settings.hosts and _split(f"//{host}").hostname not in settings.hosts:
            # A page of elsewhere whose name was made to lead here (DNS rebinding).
            raise RequestError(403, "this server is not called by this name (--allow-host).", "wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin not in settings.origins and _split(origin).netloc != host:
            raise RequestError(403, "pages of other origins may not ask here (--cors-origin).", "wrong_origin")
        preflight = scope.get("method") == "OPTIONS" and origin is not None
        if self._keys and scope["path"] not in OPEN and not preflight and not self._known(headers):
            raise RequestError(
                401,
                "give this server's API key as a bearer token.",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
            raise too_large(most)

    def _known(self, headers: Headers) -> bool:
        """Compares digests, all of them: the time says nothing of a key."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip().encode("utf-8", "surrogateescape"))
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        return kind.lower() == "bearer" and any(matches)


class _Body:
    """Counts a request's bytes as they come."""

    def __init__(self, guard: Guard, receive: Receive, most: int) -> None:
        self._guard, self._receive, self.most = guard, receive, most
        self._size, self._complete = 0, False
        self.held = 0

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), PATIENCE)
        except asyncio.TimeoutError as e:
            raise HTTPException(408, f"nothing came for {PATIENCE:.0f} seconds: send the request again.") from e
        count = len(message.get("body", b""))
        self._size += count
        if self._size > self.most:
            raise HTTPException(413, too_large(self.most).message)
        if self.most <= self._guard._settings.max_body:
            self._guard.hold(count)
            self.held += count
        self._complete = not message.get("more_body", False)
        return message


def too_large(most: int) -> RequestError:
    """What is said of a request over its limit."""
    return RequestError(
        413, f"the request is larger than {most} bytes: upload videos with POST /v1/files, or cut them.", "too_large"
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _split(url: str) -> SplitResult:
    """The parts of a URL that a client sent; none of one that is malformed."""
    try:
        parts = urlsplit(url)
        parts.hostname  # noqa: B018 - raises ValueError for one that is none
    except ValueError:
        return urlsplit("")
    return parts
