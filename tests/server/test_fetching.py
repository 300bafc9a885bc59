from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from storm_edge.server import fetching
from storm_edge.server.errors import RequestError
from storm_edge.server.fetching import fetch, public_address


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/video")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * 1000)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def refused(url: str, hosts: tuple[str, ...], most: int = 1 << 20, deadline: float = 0) -> str:
    with pytest.raises(RequestError) as caught:
        fetch(url, hosts, most, io.BytesIO(), deadline or time.monotonic() + 20, "p")
    return caught.value.code


def test_hosts_are_refused_unless_they_are_allowed() -> None:
    for url in ("http://a.org/v", "https://b.org@a.org/v", "http://a.org:99999/", "http://[/", "http://b.org.a.org/"):
        assert refused(url, ("b.org",)) in ("url_not_allowed", "url_not_fetched")


def test_addresses_of_private_networks_are_never_asked(port: int) -> None:
    assert refused(f"http://localhost:{port}/video", ("localhost",)) == "url_not_fetched"
    assert refused(f"http://127.0.0.1:{port}/video", ("127.0.0.1",)) == "url_not_fetched"
    for address in ("10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1", "224.0.0.1"):
        with pytest.raises(OSError, match="not a public"):
            public_address(address, 80)


def test_one_private_address_among_others_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(OSError, match="not a public"):
        public_address("a.org", 80)
    found.pop()
    assert public_address("a.org", 80) == "8.8.8.8"


def test_a_video_is_fetched_up_to_its_limit_and_no_redirect_followed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "public_address", lambda host, _: "127.0.0.1")
    into = io.BytesIO()
    fetch(f"http://a.org:{port}/video", ("a.org",), 1000, into, time.monotonic() + 20, "p")
    assert into.read() == b"x" * 1000
    assert refused(f"http://a.org:{port}/video", ("a.org",), most=999) == "url_not_fetched"
    assert refused(f"http://a.org:{port}/moved", ("a.org",)) == "url_not_fetched"


class _Dripping(_Handler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)


def test_a_host_that_sends_byte_by_byte_is_broken_off_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "public_address", lambda host, _: "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), _Dripping)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    begun = time.monotonic()
    assert refused(f"http://a.org:{server.server_port}/v", ("a.org",), deadline=begun + 0.5) == "url_not_fetched"
    assert time.monotonic() - begun < 3
    assert refused(f"http://a.org:{server.server_port}/v", ("a.org",), deadline=begun) == "url_not_fetched"
    server.shutdown()
    server.server_close()
    thread.join()
