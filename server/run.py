"""One server from its first request to its last: it listens, and ends as it is told to.

The first SIGTERM or Ctrl-C refuses new questions and lets the answers that are wanted finish for some seconds; a second
ends at once.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from storm_edge.runtime.errors import UsageError
from storm_edge.server.app import make_app
from storm_edge.server.service import Service
from storm_edge.server.settings import Settings

__all__ = ["Service", "Settings", "listen", "run"]

CONNECTIONS = 512  # at a time


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before anything slow begins; raises UsageError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # asyncio switches Nagle's algorithm off where the protocol is named; it costs an answer 40 ms.
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, UnicodeError) as e:
        why = getattr(e, "strerror", None) or e
        raise UsageError(f"cannot listen on {host} port {port} ({why}): give another --host or --port.") from e
    return bound


def run(service: Service, bound: socket.socket, drain: float, started: Callable[[], None]) -> None:
    """Serve until a signal ends it; `started` is called when requests are taken."""
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS,
        ws_max_size=1 << 12,  # a listener has nothing to say
        timeout_graceful_shutdown=1,
    )
    server = _Server(config, service, drain, started)
    try:
        service.start()
        server.run([bound])
    finally:
        service.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service, drain: float, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._drain, self._tell = service, drain, started
        self._until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in the main thread, between two of its steps."""
        if self._until is not None:
            self._service.files.close()
            os._exit(128 + sig)
        self._until = time.monotonic() + self._drain
        self._service.scheduler.refuse()

    async def on_tick(self, counter: int) -> bool:
        """Asked ten times a second whether to end."""
        if self._until is not None:
            left = self._service.scheduler.count and time.monotonic() < self._until
            if not left:
                self._service.scheduler.close()
                self.should_exit = True
        return await super().on_tick(counter)
