"""Videos from hosts that the owner named: no redirects, and never an address of a private network.

The address is looked up once and connected to, so that a name cannot lead elsewhere between the check and the use.
"""

from __future__ import annotations

import http.client
import ipaddress
import math
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO
from urllib.parse import SplitResult, urlsplit

from storm_edge.server.errors import RequestError

SECONDS = 30.0  # for all that one question fetches
_BLOCK = 1 << 16
_QUIET = 10.0  # seconds in which nothing comes


def fetch(url: str, hosts: Sequence[str], most: int, into: IO[bytes], deadline: float, param: str) -> None:
    """Write what an http(s) URL answers into a file, and go back to its beginning; raises RequestError.

    `deadline` is a moment of time.monotonic().
    """
    try:
        with answered(url, hosts, param, deadline) as (answer, stream):
            _copy(answer, stream, into, most, deadline, param)
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _refused("the host cannot be reached, or broke off", param) from e
    into.seek(0)


@contextmanager
def answered(
    url: str, hosts: Sequence[str], param: str, deadline: float = math.inf
) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
    """What a URL on one of `hosts` answers, and the connection; raises RequestError, OSError, HTTPException."""
    parts = check_url(url, hosts, param)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if deadline <= time.monotonic():
        raise _late(param)
    with socket.create_connection((public_address(host, port), port), timeout=_QUIET) as plain:
        secure = parts.scheme == "https"
        stream = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
        with stream:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = stream
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", target, headers={"Accept-Encoding": "identity"})
            answer = connection.getresponse()
            if answer.status != 200:  # a redirect too: it would lead to where nobody allowed
                raise _refused(f"the host answered {answer.status}", param)
            yield answer, stream


def check_url(url: str, hosts: Sequence[str], param: str) -> SplitResult:
    """The parts of a URL whose host is one of `hosts`; raises RequestError."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for one that is none
    except ValueError as e:
        raise _refused("it is no valid URL", param) from e
    if parts.hostname not in {host.lower() for host in hosts} or parts.username is not None or not url.isprintable():
        raise RequestError(
            400,
            "videos are not fetched from this host (see --allow-url-host): send a data: URL, or upload the file.",
            "url_not_allowed",
            param,
        )
    return parts


def public_address(host: str, port: int) -> str:
    """The address of a host, all of whose addresses must be public; raises OSError."""
    found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    if not addresses or not all(address.is_global and not address.is_multicast for address in addresses):
        raise OSError("not a public address")
    return sorted(found)[0]


def _copy(
    answer: http.client.HTTPResponse,
    stream: socket.socket,
    into: IO[bytes],
    most: int,
    deadline: float,
    param: str,
) -> None:
    size = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _late(param)
        stream.settimeout(min(left, _QUIET))
        block = answer.read1(_BLOCK)  # what is there: a host that sends byte by byte is not waited for
        if not block:
            return
        size += len(block)
        if size > most:
            raise _refused(f"the video is larger than {most} bytes", param)
        into.write(block)


def _late(param: str) -> RequestError:
    return _refused(f"fetching took over {SECONDS:.0f} seconds", param)


def _refused(why: str, param: str) -> RequestError:
    return RequestError(400, f"the URL cannot be fetched: {why}.", "url_not_fetched", param)
